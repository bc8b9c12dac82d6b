//! Messages into actions: the stages of [`fanfare_benches::session`] in time.

mod measure;

fn main() {
    measure::measure("session", &fanfare_benches::session::stages());
}
