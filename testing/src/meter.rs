//! What is counted while a test runs, in the text that a real exporter for Prometheus writes.

use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Counts what this thread does.
pub struct Meter {
    prometheus: PrometheusHandle,
    _guard: LocalRecorderGuard<'static>,
}

impl Meter {
    /// Counts until it is dropped.
    pub fn new() -> Self {
        let duration = Matcher::Suffix("duration_seconds".to_owned());
        let prometheus = PrometheusBuilder::new();
        let prometheus = prometheus.set_buckets_for_metric(duration, &[0.1, 1.0]).unwrap();
        let recorder = Box::leak(Box::new(prometheus.build_recorder()));
        Self {
            prometheus: recorder.handle(),
            _guard: metrics::set_default_local_recorder(recorder),
        }
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.prometheus.render()
    }

    /// The counters' lines, without what they have in common.
    pub fn counters(&self) -> Vec<String> {
        let text = self.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix("tower_refresh_"));
        let mut lines: Vec<_> =
            lines.filter(|line| line.contains("_total")).map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// There is this line.
    ///
    /// # Panics
    ///
    /// There is not.
    #[track_caller]
    pub fn assert_has(&self, line: &str) {
        let text = self.text();
        assert!(text.lines().any(|it| it == line), "no {line} in\n{text}");
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}
