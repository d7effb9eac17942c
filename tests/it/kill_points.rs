//! The process ends between any two steps of a repair, a backfill or an undo: at the nth fail point, for one n after the other.
//! After each end nothing is lost, nothing is there twice, no row was written without an intent, and the trail is whole; the
//! same command again finishes and proves.
//!
//! `TRUEUP_KILLS=all` ends it at every point (`scripts/test --long`); otherwise points are left out, so that there are some
//! hundred ends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use super::support::any::{AnyDb, Kind};
use super::support::process::{Agent, command, trueup};

type Rows = BTreeMap<i64, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Repair,
    Backfill,
    Undo,
}

/// Two databases, and a folder for the evidence.
struct Bed {
    what: What,
    source: AnyDb,
    target: AnyDb,
    dir: tempfile::TempDir,
    before: Rows,
    wanted: Rows,
    run: Option<String>,
}

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, a varchar(20) NOT NULL)";

impl Bed {
    fn new(kind: Kind, what: What) -> Self {
        let (source, target) = (AnyDb::create(kind), AnyDb::create(kind));
        source.execute(TABLE);
        source.fill("t", 1..=90, "i, 'new'");
        // What is copied back before each run.
        target.execute(TABLE);
        target.execute("CREATE TABLE was (id bigint PRIMARY KEY, a varchar(20) NOT NULL)");
        target.fill("was", 1..=60, "i, 'new'");
        if what != What::Backfill {
            target.execute("UPDATE was SET a = 'old' WHERE id % 7 = 0; DELETE FROM was WHERE id % 11 = 0");
            target.fill("was", 1001..=1010, "i, 'extra'");
        }
        let dir = tempfile::tempdir().unwrap();
        let bed = Self { what, source, target, dir, before: Rows::new(), wanted: Rows::new(), run: None };
        bed.reset();
        let mut bed = Self { before: bed.rows(), ..bed };
        bed.wanted = bed.source.rows().into_iter().collect();
        if what == What::Undo {
            let done = trueup(&bed.args_of(What::Repair));
            assert_eq!(done.status, 0, "{done:?}");
            bed.run = Some(done.json()["run"].as_str().unwrap().to_owned());
            bed.target.execute("DELETE FROM was; INSERT INTO was SELECT id, a FROM t");
            std::mem::swap(&mut bed.before, &mut bed.wanted);
            copy(&bed.path("evidence"), &bed.path("kept"));
        }
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ledger(&self) -> String {
        self.path("evidence/ledger.db").to_str().unwrap().to_owned()
    }

    fn rows(&self) -> Rows {
        let rows = self.target.rows();
        let count = rows.len();
        let rows: Rows = rows.into_iter().collect();
        assert_eq!(rows.len(), count, "a row is there twice");
        rows
    }

    /// The target and the evidence as before the command.
    fn reset(&self) {
        self.target.execute("DELETE FROM t; INSERT INTO t SELECT id, a FROM was");
        let _ = std::fs::remove_dir_all(self.path("evidence"));
        match self.path("kept").exists() {
            true => copy(&self.path("kept"), &self.path("evidence")),
            false => std::fs::create_dir_all(self.path("evidence")).unwrap(),
        }
    }

    fn args(&self) -> Vec<&'static str> {
        self.args_of(self.what)
    }

    fn args_of(&self, what: What) -> Vec<&'static str> {
        // Tests are few and end with their process.
        let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let (source, target, ledger) =
            (leak(self.source.url()), leak(self.target.url()), leak(self.ledger()));
        let mut args = match what {
            What::Repair => vec![
                "repair",
                source,
                target,
                "-t",
                "t",
                "--allow",
                "insert,update,delete",
                "--max-changes",
                "1000",
            ],
            // Pieces, so that there are several batches.
            What::Backfill => vec!["backfill", source, target, "-t", "t", "--on", "id", "--chunk-rows", "20"],
            What::Undo => vec!["undo", leak(self.run.clone().unwrap()), "--target", target],
        };
        if what != What::Undo {
            args.extend(["--quiet", "--recheck-delay", "1ms"]);
        }
        args.extend(["--ledger", ledger, "--keep-keys", "--format", "json"]);
        args
    }

    /// Ends the command at the nth point; whether it came so far.
    fn killed_at(&self, nth: u64) -> bool {
        self.reset();
        let nth = nth.to_string();
        let mut command = command(&self.args(), &[("TRUEUP_FAIL_POINT", &nth)]);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        if let Some(code) = status.code() {
            assert_eq!(code, 0, "{:?} ended by itself", self.what);
            return false;
        }
        true
    }

    /// What must hold after every end.
    fn check(&self, said: &str) {
        let rows = self.rows();
        let mut changed = BTreeSet::new();
        for id in self.before.keys().chain(self.wanted.keys()).chain(rows.keys()) {
            let (before, wanted, now) = (self.before.get(id), self.wanted.get(id), rows.get(id));
            assert!(
                now == before || now == wanted,
                "row {id} is {now:?}, not {before:?} or {wanted:?}: {said}"
            );
            if now != before {
                changed.insert(format!("id={id}"));
            }
        }
        if Path::new(&self.ledger()).exists() {
            let verified = trueup(&["audit", "verify", "--ledger", &self.ledger()]);
            assert_eq!(verified.status, 0, "{said}: {verified:?}");
        }
        let (announced, written) = self.trail();
        let without: Vec<&String> = changed.difference(&announced).collect();
        assert!(without.is_empty(), "written without an intent: {without:?}: {said}");
        let twice: Vec<&String> =
            written.iter().filter(|(_, times)| **times > 1).map(|(key, _)| key).collect();
        assert!(twice.is_empty(), "written twice: {twice:?}: {said}");
    }

    /// Keys that the trail announces, and how often it says of each that it was written. Of an undo: since its run.
    fn trail(&self) -> (BTreeSet<String>, BTreeMap<String, u32>) {
        let (mut announced, mut written) = (BTreeSet::new(), BTreeMap::new());
        if !Path::new(&self.ledger()).exists() {
            return (announced, written);
        }
        let list = trueup(&["audit", "export", "--ledger", &self.ledger()]);
        for line in list.stdout.lines() {
            let entry: Value = serde_json::from_str(line).unwrap();
            if self.run.as_deref().is_some_and(|run| entry["run"] == run) {
                continue;
            }
            let detail = || -> Value { serde_json::from_str(entry["detail"].as_str().unwrap()).unwrap() };
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            match (entry["kind"].as_str(), entry["outcome"].as_str()) {
                (Some("intent"), _) => {
                    announced.extend(detail()["keys"].as_array().unwrap().iter().map(text))
                }
                (Some("row"), Some("written")) => *written.entry(text(&entry["key"])).or_default() += 1,
                (Some("rows"), Some("written")) => {
                    for row in detail()["rows"].as_array().unwrap() {
                        *written.entry(text(&row[0])).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        (announced, written)
    }

    /// The same command again.
    fn finish(&self, said: &str) {
        let again = trueup(&self.args());
        assert_eq!(again.status, 0, "{said}: {again:?}");
        assert_eq!(self.rows(), self.wanted, "{said}");
        if self.what == What::Repair {
            assert_eq!(again.json()["tables"][0]["proved"], true, "{said}");
        }
        self.check(said);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}

/// Ends of the ordinary test, for each of nine cases.
const KILLS: u64 = 8;
/// Rounds over all points: steps that go on side by side come in another order each time.
const ROUNDS: u64 = 3;

fn all() -> bool {
    std::env::var("TRUEUP_KILLS").is_ok_and(|kills| kills == "all")
}

/// Points that the command passes when it is not ended, and how often it was ended to find out.
fn points(bed: &Bed) -> (u64, u64) {
    let mut kills = 0;
    let mut killed_at = |nth| {
        let killed = bed.killed_at(nth);
        if killed {
            kills += 1;
            bed.check(&format!("{:?} ended at point {nth}", bed.what));
        }
        killed
    };
    let (mut low, mut high) = (1, 2);
    while killed_at(high) {
        (low, high) = (high, high * 2);
    }
    while high - low > 1 {
        let middle = u64::midpoint(low, high);
        if killed_at(middle) { low = middle } else { high = middle }
    }
    (low, kills)
}

#[expect(clippy::print_stdout, reason = "how many ends there were, for who runs all of them")]
fn killed_between_any_two_steps(kind: Kind, what: What) -> u64 {
    let bed = Bed::new(kind, what);
    let (points, mut kills) = points(&bed);
    let (rounds, step) = if all() { (ROUNDS, 1) } else { (1, (points / KILLS).max(1)) };
    for nth in (0..rounds).flat_map(|_| (1..=points).step_by(usize::try_from(step).unwrap())) {
        let said = format!("{kind:?} {what:?} ended at point {nth} of {points}");
        // Steps of one run may come in another order than those of the run before.
        if bed.killed_at(nth) {
            kills += 1;
            bed.check(&said);
            if all() || kills % 3 == 0 {
                bed.finish(&said);
            }
        }
    }
    println!("{kind:?} {what:?}: {kills} ends at {points} points");
    kills
}

#[expect(clippy::print_stdout, reason = "how many ends there were, for who runs all of them")]
fn every_kind(what: What) {
    let kills: u64 = std::thread::scope(|scope| {
        let of = [Kind::Sqlite, Kind::Postgres, Kind::Mysql]
            .map(|kind| scope.spawn(move || killed_between_any_two_steps(kind, what)));
        of.into_iter().map(|of| of.join().unwrap()).sum()
    });
    assert!(kills >= 3 * KILLS, "{what:?}: {kills}");
    println!("{what:?}: {kills} ends");
}

#[test]
fn a_repair_ends_between_any_two_steps() {
    every_kind(What::Repair);
}

#[test]
fn a_backfill_ends_between_any_two_steps() {
    every_kind(What::Backfill);
}

#[test]
fn an_undo_ends_between_any_two_steps() {
    every_kind(What::Undo);
}

/// The target's agent alone ends, elsewhere than the coordinator with its ledger.
#[test]
fn an_agent_elsewhere_ends_between_any_two_steps() {
    let bed = Bed::new(Kind::Postgres, What::Repair);
    let step = if all() { 1 } else { 3 };
    let (mut kills, mut nth) = (0, 1);
    loop {
        bed.reset();
        let agent = Agent::start(
            &["--database", &bed.target.url(), "--allow-write"],
            &[("TRUEUP_FAIL_POINT", &nth.to_string())],
        );
        let mut args = bed.args();
        let address = format!("grpc://{}", agent.address);
        args[2] = &address;
        let output = trueup(&args);
        if output.status == 0 {
            break;
        }
        assert_eq!(output.status, 2, "{output:?}");
        kills += 1;
        let said = format!("agent ended at point {nth}: {output:?}");
        bed.check(&said);
        if all() || kills % 3 == 0 {
            bed.finish(&said);
        }
        nth += step;
    }
    println!("agent elsewhere: {kills} ends");
    assert!(kills >= 5, "{kills}");
}
