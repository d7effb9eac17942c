//! What Prometheus reads: names and counts.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::agent::{SOFTWARE, TableOutcome};
use crate::report::checks::{CheckResult, Status};

type Labels = Vec<(&'static str, String)>;
type Counts = Family<Labels, Counter<u64, AtomicU64>>;
type Levels = Family<Labels, Gauge<i64, AtomicI64>>;
type Seconds = Family<Labels, Gauge<f64, AtomicU64>>;
type Time = Family<Labels, Counter<f64, AtomicU64>>;

/// Cheap to clone: all clones count together.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    results: Counts,
    status: Levels,
    seconds: Time,
    last_pass: Seconds,
    last_run: Seconds,
    rows_read: Counts,
    rows_written: Counts,
    differences: Counts,
    link_bytes: Counts,
    alerts: Counts,
    failures: Counts,
    waiting: Levels,
    running: Levels,
    outbox: Levels,
    incidents: Levels,
    reloads: Counts,
    last_beat: Seconds,
    /// Checks that are shown, so that one that was taken out of the configuration is shown no longer.
    shown: Arc<Mutex<BTreeSet<Labels>>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("trueup");
        let all = Self {
            registry: Arc::new(Registry::default()),
            results: Family::default(),
            status: Family::default(),
            seconds: Family::default(),
            last_pass: Family::default(),
            last_run: Family::default(),
            rows_read: Family::default(),
            rows_written: Family::default(),
            differences: Family::default(),
            link_bytes: Family::default(),
            alerts: Family::default(),
            failures: Family::default(),
            waiting: Family::default(),
            running: Family::default(),
            outbox: Family::default(),
            incidents: Family::default(),
            reloads: Family::default(),
            last_beat: Family::default(),
            shown: Arc::default(),
        };
        registry.register("check_results", "Results of checks, by status", all.results.clone());
        registry.register(
            "check_status",
            "Last result: 0 pass, 1 within tolerance, 2 fail, 3 could not tell",
            all.status.clone(),
        );
        registry.register_with_unit("check", "Time that checks took", Unit::Seconds, all.seconds.clone());
        registry.register_with_unit(
            "check_last_pass_timestamp",
            "When a check last passed, since 1970",
            Unit::Seconds,
            all.last_pass.clone(),
        );
        registry.register_with_unit(
            "check_last_run_timestamp",
            "When a check last ran, since 1970",
            Unit::Seconds,
            all.last_run.clone(),
        );
        registry.register("rows_read", "Rows compared, by side", all.rows_read.clone());
        registry.register("rows_written", "Rows written by checks that repair", all.rows_written.clone());
        registry.register("differences", "Differing rows found, by kind", all.differences.clone());
        registry.register_with_unit(
            "link",
            "Bytes between the two sides",
            Unit::Bytes,
            all.link_bytes.clone(),
        );
        registry.register("alerts", "Messages to a channel, by outcome", all.alerts.clone());
        registry.register("failures", "What could not be done, by part", all.failures.clone());
        registry.register("checks_waiting", "Checks that are due and wait", all.waiting.clone());
        registry.register("checks_running", "Checks that run in this coordinator", all.running.clone());
        registry.register("outbox_messages", "Messages that wait, or were given up", all.outbox.clone());
        registry.register("incidents_open", "Checks that do not hold, by severity", all.incidents.clone());
        registry.register("config_reloads", "Configurations read, by outcome", all.reloads.clone());
        registry.register_with_unit(
            "last_beat_timestamp",
            "When the coordinator last looked for work, since 1970",
            Unit::Seconds,
            all.last_beat.clone(),
        );
        let info: Levels = Family::default();
        info.get_or_create(&labels([("software", SOFTWARE)])).set(1);
        registry.register("build_info", "The release", info);
        Self { registry: Arc::new(registry), ..all }
    }
}

impl Metrics {
    /// In the text format of OpenMetrics.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut out, &self.registry);
        out
    }

    /// A check has run; `now` in seconds since 1970.
    pub fn result(&self, result: &CheckResult, now: f64) {
        let table = result.table.as_deref().unwrap_or_default();
        let of = labels([
            ("check", &result.name),
            ("pair", &result.pair),
            ("table", table),
            ("severity", &result.severity),
        ]);
        self.results
            .get_or_create(&labels([("check", &result.name), ("status", result.status.as_str())]))
            .inc();
        self.status.get_or_create(&of).set(match result.status {
            Status::Pass => 0,
            Status::WithinTolerance => 1,
            Status::Fail => 2,
            Status::Unknown => 3,
        });
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).insert(of);
        let name = labels([("check", &result.name)]);
        self.seconds.get_or_create(&name).inc_by(result.seconds.max(0.0));
        self.last_run.get_or_create(&name).set(now);
        if result.status <= Status::WithinTolerance {
            self.last_pass.get_or_create(&name).set(now);
        }
    }

    pub fn table(&self, outcome: &TableOutcome) {
        for (side, rows) in [("source", outcome.source_rows), ("target", outcome.target_rows)] {
            self.rows_read.get_or_create(&labels([("side", side)])).inc_by(rows);
        }
        for (kind, rows) in
            [("missing", outcome.missing), ("changed", outcome.changed), ("extra", outcome.extra)]
        {
            self.differences.get_or_create(&labels([("kind", kind)])).inc_by(rows);
        }
        for (operation, rows) in
            [("insert", outcome.inserted), ("update", outcome.updated), ("delete", outcome.deleted)]
        {
            self.rows_written.get_or_create(&labels([("operation", operation)])).inc_by(rows);
        }
        for (to, bytes) in [("source", outcome.bytes_to_source), ("target", outcome.bytes_to_target)] {
            self.link_bytes.get_or_create(&labels([("to", to)])).inc_by(bytes);
        }
    }

    /// Shows only checks of these names.
    pub fn only(&self, names: &BTreeSet<&str>) {
        let gone = |of: &Labels| of.first().is_none_or(|(_, name)| !names.contains(name.as_str()));
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).retain(|of| {
            if gone(of) {
                self.status.remove(of);
                let name = of.iter().take(1).cloned().collect();
                self.last_pass.remove(&name);
                self.last_run.remove(&name);
            }
            !gone(of)
        });
    }

    pub fn alert(&self, channel: &str, sent: bool) {
        let outcome = if sent { "sent" } else { "failed" };
        self.alerts.get_or_create(&labels([("channel", channel), ("outcome", outcome)])).inc();
    }

    pub fn failure(&self, part: &str) {
        self.failures.get_or_create(&labels([("part", part)])).inc();
    }

    pub fn reload(&self, sound: bool) {
        let outcome = if sound { "sound" } else { "refused" };
        self.reloads.get_or_create(&labels([("outcome", outcome)])).inc();
    }

    pub fn beat(&self, now: f64, waiting: usize, running: usize) {
        let level = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.last_beat.get_or_create(&Vec::new()).set(now);
        self.waiting.get_or_create(&Vec::new()).set(level(waiting));
        self.running.get_or_create(&Vec::new()).set(level(running));
    }

    pub fn outbox(&self, waiting: u64, given_up: u64) {
        let level = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.outbox.get_or_create(&labels([("state", "waiting")])).set(level(waiting));
        self.outbox.get_or_create(&labels([("state", "given_up")])).set(level(given_up));
    }

    pub fn incidents(&self, by_severity: [(&'static str, usize); 3]) {
        for (severity, count) in by_severity {
            let level = i64::try_from(count).unwrap_or(i64::MAX);
            self.incidents.get_or_create(&labels([("severity", severity)])).set(level);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::incident::tests::result;
    use super::*;

    /// Names of metrics in a text.
    fn named(text: &str) -> BTreeSet<String> {
        text.match_indices("trueup_")
            .map(|(at, _)| {
                text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
            })
            .collect()
    }

    fn all() -> Metrics {
        let metrics = Metrics::default();
        metrics.result(&result(Status::Pass), 1.0);
        metrics.table(&TableOutcome::default());
        metrics.alert("ops", true);
        metrics.failure("ledger");
        metrics.beat(2.0, 1, 1);
        metrics.outbox(1, 0);
        metrics.incidents([("info", 0), ("warning", 1), ("critical", 0)]);
        metrics.reload(true);
        metrics
    }

    #[test]
    fn rules_dashboard_and_documentation_name_what_there_is() {
        let known = named(&all().text());
        for file in ["deploy/prometheus/alerts.yaml", "deploy/grafana/trueup.json", "docs/operations.md"] {
            let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
            let unknown: Vec<String> = named(&text).difference(&known).cloned().collect();
            assert!(!named(&text).is_empty() && unknown.is_empty(), "{file}: {unknown:?}");
        }
    }

    #[test]
    fn what_was_taken_out_is_shown_no_longer() {
        let metrics = all();
        assert!(metrics.text().contains("trueup_check_status{check=\"rows\""));
        metrics.only(&BTreeSet::from(["other"]));
        let text = metrics.text();
        assert!(
            !text.contains("trueup_check_status{check=")
                && !text.contains("last_run_timestamp_seconds{check=")
        );
    }
}
