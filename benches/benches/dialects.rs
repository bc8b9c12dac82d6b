//! Events into frames, JSON texts into actions: the stages of [`fanfare_benches::dialects`] in time.

mod measure;

fn main() {
    measure::measure("dialects", &fanfare_benches::dialects::stages());
}
