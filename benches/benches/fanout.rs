//! A shard's audience: the stages of [`fanfare_benches::fanout`] in time.

mod measure;

fn main() {
    measure::measure("fanout", &fanfare_benches::fanout::stages());
}
