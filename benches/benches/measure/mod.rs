//! Stages under criterion.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use fanfare_benches::{Amount, Stage};

/// Measures the stages of one file, briefly: all files together take a few minutes. For finer figures pass
/// `--measurement-time 10`.
pub(crate) fn measure(file: &str, stages: &[Stage]) {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(50)
        .configure_from_args();
    let mut group = criterion.benchmark_group(file);
    for stage in stages {
        group.throughput(match stage.amount {
            Amount::One => Throughput::Elements(1),
            Amount::Bytes(bytes) => Throughput::Bytes(bytes),
            Amount::Deliveries(deliveries) => Throughput::Elements(deliveries),
        });
        let name = stage.name.strip_prefix(file).map_or(stage.name.as_str(), |rest| rest.trim_start_matches('/'));
        let mut run = None;
        group.bench_function(name, |bencher| {
            // Prepared here, so that a stage that the filter passes over is not.
            let run = run.get_or_insert_with(|| stage.prepare());
            bencher.iter_custom(|times| {
                let start = Instant::now();
                run(times);
                start.elapsed()
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
