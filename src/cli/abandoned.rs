//! Runs that died without an end get one, so that the ledger says so and retention is not held up by them. A run that may
//! still live is left alone.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::liveness::{Life, life};
use super::stamp::{before, by, timestamp};
use crate::ledger::{Ledger, LedgerError, OpenRun};

/// A run gives a sign of life every minute. Without one for so long, nobody runs it any more.
const SILENT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long silence is judged.
#[derive(Debug)]
pub(super) enum Silence<'a> {
    /// By the clock alone.
    ByClock,
    /// And only where a look some time ago saw the same: a clock that was set makes live runs look old for a minute.
    SeenTwice(&'a mut BTreeMap<String, String>),
    /// Not at all: the clock is not to be trusted.
    NotJudged,
}

/// Closes what died; how many runs that were.
pub(super) async fn close_abandoned(ledger: &Ledger, mut silence: Silence<'_>) -> Result<u64, LedgerError> {
    let by = by();
    let oldest = before(SILENT_MAX).unwrap_or_default();
    let mut silent = BTreeMap::new();
    let mut closed = 0;
    for run in ledger.open_runs().await? {
        let why = match life(&run.start.process) {
            Life::Lives => continue,
            Life::Gone => format!("its process on {} has ended without noting the run's end", run.start.host),
            Life::NotKnown if run.seen_at >= oldest => continue,
            Life::NotKnown => {
                silent.insert(run.start.id.clone(), run.seen_at.clone());
                if !is_over(&run, &silence) {
                    continue;
                }
                format!("it has given no sign of life since {}", run.seen_at)
            }
        };
        if ledger.abandon(&run, &by, &timestamp(SystemTime::now()), &why).await? {
            closed += 1;
            tracing::warn!(run = run.start.id, "closed as abandoned: {why}");
        }
    }
    if let Silence::SeenTwice(seen) = &mut silence {
        **seen = silent;
    }
    Ok(closed)
}

fn is_over(run: &OpenRun, silence: &Silence<'_>) -> bool {
    match silence {
        Silence::ByClock => true,
        Silence::SeenTwice(seen) => seen.get(&run.start.id) == Some(&run.seen_at),
        Silence::NotJudged => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::liveness::this_process;
    use crate::ledger::{RunFilter, RunStart};

    async fn ledger() -> (tempfile::TempDir, Ledger) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open_file(&dir.path().join("ledger.db"), true).await.unwrap();
        (dir, ledger)
    }

    async fn begin(ledger: &Ledger, id: &str, process: &str, started: &str) {
        let start = RunStart {
            id: id.into(),
            kind: "repair".into(),
            started_at: started.into(),
            process: process.into(),
            ..by()
        };
        ledger.begin(&start).await.unwrap();
    }

    async fn open(ledger: &Ledger) -> Vec<String> {
        let filter = RunFilter { outcome: Some("open".into()), ..RunFilter::default() };
        let mut open: Vec<String> =
            ledger.runs(&filter).await.unwrap().into_iter().map(|run| run.id).collect();
        open.sort();
        open
    }

    #[tokio::test]
    async fn who_died_is_closed_and_who_may_live_is_not() {
        let (_dir, ledger) = ledger().await;
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let me = this_process();
        let mut parts: Vec<&str> = me.split('/').collect();
        let (pid, stat) = (child.id().to_string(), format!("/proc/{}/stat", child.id()));
        let start = std::fs::read_to_string(stat).unwrap();
        let start = start.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().to_owned();
        let at = parts.len();
        parts[at - 2] = &pid;
        parts[at - 1] = &start;
        let other = parts.join("/");
        let (now, old) = (timestamp(SystemTime::now()), before(Duration::from_secs(8 * 24 * 3600)).unwrap());
        // Runs of this process and of a child live, however old; elsewhere only the age can tell.
        begin(&ledger, "mine", &me, &old).await;
        begin(&ledger, "child", &other, &old).await;
        begin(&ledger, "elsewhere-old", "", &old).await;
        begin(&ledger, "elsewhere-beats", "other-boot/pid:[1]/7/7", &old).await;
        begin(&ledger, "elsewhere-new", "other-boot/pid:[1]/8/8", &now).await;
        assert!(ledger.beat("elsewhere-beats", &now).await.unwrap());
        let mut seen = BTreeMap::new();
        assert_eq!(close_abandoned(&ledger, Silence::NotJudged).await.unwrap(), 0);
        assert_eq!(close_abandoned(&ledger, Silence::SeenTwice(&mut seen)).await.unwrap(), 0, "seen once");
        assert_eq!(close_abandoned(&ledger, Silence::SeenTwice(&mut seen)).await.unwrap(), 1);
        assert_eq!(open(&ledger).await, ["child", "elsewhere-beats", "elsewhere-new", "mine"]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(close_abandoned(&ledger, Silence::NotJudged).await.unwrap(), 1);
        assert_eq!(open(&ledger).await, ["elsewhere-beats", "elsewhere-new", "mine"]);
        let closed = ledger.run("child").await.unwrap();
        assert_eq!(closed.outcome.as_deref(), Some("abandoned"));
        assert!(closed.error.unwrap().contains("has ended without noting"));
        let verified = ledger.verify(None).await.unwrap();
        assert_eq!((verified.faults.len(), verified.open_runs.len()), (0, 3), "{verified:?}");
    }
}
