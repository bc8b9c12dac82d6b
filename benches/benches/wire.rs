//! Client frames: the stages of [`fanfare_benches::wire`] in time.

mod measure;

fn main() {
    measure::measure("wire", &fanfare_benches::wire::stages());
}
