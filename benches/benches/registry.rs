//! Rooms: joining, leaving, publishing: the stages of [`fanfare_benches::registry`] in time.

mod measure;

fn main() {
    measure::measure("registry", &fanfare_benches::registry::stages());
}
