//! What messages say: the stages of [`fanfare_benches::words`] in time.

mod measure;

fn main() {
    measure::measure("words", &fanfare_benches::words::stages());
}
