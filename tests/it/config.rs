//! `trueup init` and `trueup config check`, in a folder of their own and against real databases.

use std::path::Path;

use super::support::process::{Output, trueup_with};
use super::support::servers::{MysqlDb, PostgresDb, SqliteDb};

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().unwrap().to_owned()
}

fn check(dir: &Path, text: &str, env: &[(&str, &str)]) -> Output {
    let file = path(dir, "trueup.toml");
    std::fs::write(&file, text).unwrap();
    trueup_with(&["config", "check", "-c", &file], env)
}

#[test]
fn init_writes_what_config_check_takes_and_never_overwrites() {
    let (source, target) = (PostgresDb::create(), MysqlDb::create());
    source.execute("CREATE TABLE orders (id bigint PRIMARY KEY, note text); CREATE TABLE \"odd.one\" (id int PRIMARY KEY); CREATE TABLE alone (id int PRIMARY KEY)");
    target.execute(
        "CREATE TABLE orders (id BIGINT PRIMARY KEY, note TEXT); CREATE TABLE `odd.one` (id INT PRIMARY KEY)",
    );
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "trueup.toml");
    let (from, to) = (source.url(), target.url());
    let made = trueup_with(&["init", &from, &to, "-c", &file], &[]);
    assert_eq!(made.status, 0, "{made:?}");
    let written = std::fs::read_to_string(&file).unwrap();
    let environment = std::fs::read_to_string(dir.path().join(".env.example")).unwrap();
    // Both URLs hold a password.
    assert!(
        made.stdout.contains("set DATABASE_URL to it")
            && made.stdout.contains("set TARGET_DATABASE_URL to it")
    );
    for text in [&written, &environment, &made.stdout, &made.stderr] {
        assert!(!text.contains(from.split('@').next().unwrap().rsplit(':').next().unwrap()), "{text}");
    }
    assert!(
        written.contains("\"orders\",") && written.contains("'\"odd.one\"',") && !written.contains("alone"),
        "{written}"
    );
    for name in ["DATABASE_URL=\n", "TARGET_DATABASE_URL=\n", "API_KEY=\n"] {
        assert!(environment.contains(name), "{environment}");
    }
    let env = [("DATABASE_URL", from.as_str()), ("TARGET_DATABASE_URL", to.as_str())];
    let checked = trueup_with(&["config", "check", "-c", &file], &env);
    assert_eq!(checked.status, 0, "{checked:?}");
    assert!(checked.stdout.contains("2 tables can be compared"), "{checked:?}");
    assert_eq!(trueup_with(&["check", "-c", &file, "--quiet"], &env).status, 0);
    let again = trueup_with(&["init", "env:DATABASE_URL", &to, "-c", &file], &env);
    assert_eq!(again.status, 2);
    assert!(again.stderr.contains("never overwritten"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
}

#[test]
fn init_goes_on_without_the_databases() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "t.toml");
    let made = trueup_with(&["init", "env:NOT_SET", "sqlite:///nowhere/b.db", "-c", &file], &[]);
    assert_eq!(made.status, 0, "{made:?}");
    let offline = trueup_with(&["config", "check", "-c", &file, "--offline"], &[]);
    assert_eq!(offline.status, 0, "{offline:?}");
    let online = trueup_with(&["config", "check", "-c", &file], &[]);
    assert_eq!(online.status, 2);
    for words in [
        "t.toml:6:1: endpoint source: the environment variable NOT_SET is not set",
        "endpoint target: target: cannot open",
        "hint: check the path",
    ] {
        assert!(online.stderr.contains(words), "{words}: {}", online.stderr);
    }
}

#[test]
fn faults_are_told_with_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let output = check(
        dir.path(),
        "[endpoints.a]\nurl = \"sqlite://a.db\"\n\n[pairs.p]\nsource = \"a\"\ntarget = \"b\"\n",
        &[],
    );
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("1 fault in the configuration"), "{output:?}");
    assert!(output.stderr.contains("trueup.toml:6:10: there is no endpoint `b`"), "{output:?}");
    assert!(output.stderr.contains("  6 | target = \"b\"\n    |          ^\n  hint: "), "{output:?}");
    let secret = check(dir.path(), "[endpoints.a]\nurl = \"postgres://u:hunter2@h/d\"\n", &[]);
    assert!(
        secret.stderr.contains(":2:7: a password does not belong") && !secret.stderr.contains("hunter2"),
        "{secret:?}"
    );
    let none = trueup_with(&["config", "check", "-c", "/nowhere/t.toml"], &[]);
    assert!(none.status == 2 && none.stderr.contains("trueup init"), "{none:?}");
}

#[test]
fn what_the_databases_do_not_have_is_named() {
    let (source, target) = (PostgresDb::create(), SqliteDb::create());
    source.execute("CREATE TABLE orders (id int PRIMARY KEY, amount numeric(10,2), note text, at timestamptz, tag inet); CREATE TABLE bad (id int PRIMARY KEY, v int)");
    target.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount DECIMAL(10,2), note TEXT, at TIMESTAMP); CREATE TABLE bad (id INTEGER PRIMARY KEY, v TEXT)");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret.url"), format!("{}\n", source.url())).unwrap();
    let text = format!(
        "[endpoints.east]\nurl_file = \"secret.url\"\n[endpoints.west]\nurl = \"{}\"\n\n[pairs.shop]\nsource = \"east\"\ntarget = \"west\"\n\
         tables = [\n  {{ table = \"orders\", assume_utc = true }},\n  \"bad\",\n  \"ordres\",\n  {{ table = \"orders2\", exclude = [\"x\"] }},\n]\n\
         [checks.a]\npair = \"shop\"\ntable = \"orders\"\nkind = \"sum\"\ncolumn = \"amuont\"\n\
         [checks.b]\npair = \"shop\"\ntable = \"orders\"\nkind = \"max\"\ncolumn = \"note\"\n\
         [checks.c]\npair = \"shop\"\ntable = \"orders\"\nkind = \"gaps\"\ncolumn = \"at\"\nstep = 100\n\
         [checks.d]\npair = \"shop\"\ntable = \"orders\"\nkind = \"count\"\nwindow = {{ column = \"id\", last = \"1day\" }}\n\
         [checks.e]\npair = \"shop\"\ntable = \"orders\"\nkind = \"sum\"\ncolumn = \"amount\"\n",
        target.url()
    );
    let output = check(dir.path(), &text, &[]);
    assert_eq!(output.status, 2);
    for words in [
        "7 faults",
        "trueup.toml:11:1: table bad: column v cannot be compared: integer in the source, TEXT in the target",
        "trueup.toml:12:1: table ordres: source: cannot",
        "did you mean orders?",
        "trueup.toml:13:1: table orders2",
        "trueup.toml:15:1: check a: no column amuont",
        "trueup.toml:20:1: check b: column note (text) has no largest value",
        "trueup.toml:25:1: check c: the column holds times: --step is hour, day or month",
        "trueup.toml:31:1: check d: column id holds integers",
    ] {
        assert!(output.stderr.contains(words), "{words}: {}", output.stderr);
    }
    assert!(output.stdout.contains("pair shop: 1 tables can be compared"), "{output:?}");
    assert!(output.stdout.contains("note: orders: columns only in the source: tag"), "{output:?}");
    // Only this file's own folder was needed to find the secret.
    assert!(!format!("{output:?}").contains(source.url().split('@').next().unwrap()), "{output:?}");
}
