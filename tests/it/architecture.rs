//! The floors: imports point only downwards, and foreign crates stay at home. Read from the sources.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each module may import. `main.rs` may import `cli`; `lib.rs` only names the modules.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("merkle", &["model"]),
    ("locate", &["model", "merkle"]),
    ("engine", &["model"]),
    ("agent", &["model", "merkle", "locate", "engine"]),
    ("report", &["model", "agent"]),
    ("coordinator", &["model", "agent", "engine", "report"]),
    ("ledger", &["model", "agent", "report"]),
    ("config", &["model"]),
    ("checks", &["model", "engine", "agent", "report", "coordinator", "config"]),
    ("serve", &["model", "agent", "report", "config", "ledger"]),
    ("dashboard", &["agent", "report", "ledger"]),
    (
        "cli",
        &[
            "model",
            "engine",
            "agent",
            "report",
            "coordinator",
            "config",
            "checks",
            "ledger",
            "serve",
            "dashboard",
        ],
    ),
];

/// Where a foreign crate may be named.
const HOMES: &[(&str, &[&str])] = &[
    ("sqlx", &["engine", "ledger"]),
    ("rusqlite", &["engine", "cli", "ledger"]),
    ("tonic", &["agent"]),
    ("prost", &["agent"]),
    ("clap", &["cli"]),
    ("maud", &["dashboard"]),
    ("indicatif", &["cli"]),
    ("jiff", &["coordinator", "config", "checks", "serve", "cli"]),
    ("croner", &["config"]),
    ("axum", &["serve", "dashboard", "cli"]),
    ("hyper", &["serve"]),
    ("lettre", &["serve"]),
    ("opentelemetry", &["cli"]),
    ("opentelemetry_otlp", &["cli"]),
    ("prometheus_client", &["serve"]),
    ("toml", &["config"]),
    ("quick_xml", &["report"]),
    ("rayon", &["agent", "locate", "merkle"]),
    ("blake3", &["merkle", "agent", "ledger", "dashboard"]),
    ("maud", &["dashboard"]),
    ("sha1", &["engine"]),
    ("chacha20poly1305", &["agent"]),
    ("uuid", &["cli"]),
    ("whoami", &["cli"]),
];

/// Clock, environment and input belong to floor 4; below it they are arguments.
const BANNED: &[(&str, &[&str])] = &[
    ("SystemTime::now", &["cli"]),
    ("std::time::Instant", &["cli"]),
    ("std::env::", &["cli"]),
    ("HashMap", &["engine", "agent", "report", "coordinator", "cli"]),
];

pub(crate) fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, into: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                into.push((path, text));
            }
        }
    }
    let mut all = Vec::new();
    walk(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path(), &mut all);
    assert!(all.len() > 20, "the sources were not found");
    all
}

fn module_of(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let first = path.strip_prefix(root).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

pub(crate) fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
}

/// The code without comments and without its test module.
pub(crate) fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    // The default place of scratch files; it is read, not set.
    let text = text.replace("std::env::temp_dir", "");
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The first segments of every `crate::…` path, also inside `use crate::{a::b, c}`.
fn crate_imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        let (mut depth, mut fresh) = (0, true);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => fresh = true,
                c if fresh && c.is_alphabetic() => {
                    found.insert(word(&group[at..]));
                    fresh = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn violations(module: &str, code: &str) -> Vec<String> {
    let mut bad = Vec::new();
    let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed);
    let known: BTreeSet<&str> = MAY_IMPORT.iter().map(|(name, _)| *name).collect();
    if let Some(allowed) = allowed {
        for import in crate_imports(code) {
            if known.contains(import.as_str()) && import != module && !allowed.contains(&import.as_str()) {
                bad.push(format!("{module} imports {import}, which is not below it"));
            }
        }
        for (foreign, homes) in HOMES {
            let named = format!("{foreign}::");
            let used = code
                .match_indices(&named)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            if used && !homes.contains(&module) {
                bad.push(format!("{module} uses {foreign}, whose home is {homes:?}"));
            }
        }
        for (banned, homes) in BANNED {
            if code.contains(banned) && !homes.contains(&module) {
                bad.push(format!("{module} uses {banned}"));
            }
        }
    }
    bad
}

#[test]
fn imports_point_downwards_and_crates_are_at_home() {
    let mut bad = Vec::new();
    for (path, text) in sources() {
        if is_test(&path) {
            continue;
        }
        let module = module_of(&path);
        let named =
            MAY_IMPORT.iter().any(|(name, _)| *name == module) || matches!(module.as_str(), "lib" | "main");
        assert!(named, "{module} has no floor: add it to the table here and in lib.rs");
        bad.extend(
            violations(&module, &code(&text)).into_iter().map(|what| format!("{}: {what}", path.display())),
        );
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn rows_cannot_reach_the_floors_that_talk() {
    for (path, text) in sources() {
        if !matches!(module_of(&path).as_str(), "coordinator" | "report" | "ledger") {
            continue;
        }
        for word in ["CanonicalRow", "decode_row", "KeyedRow", "RowBuffer"] {
            assert!(!text.contains(word), "{} names {word}: rows never pass the coordinator", path.display());
        }
    }
}

/// Calls that write, on anything that is called an engine.
fn engine_writes(code: &str) -> usize {
    let code: String = code.split_whitespace().collect();
    ["apply", "apply_within", "insert", "replace"]
        .iter()
        .map(|call| {
            [format!("engine.{call}("), format!("engine.as_ref().{call}(")]
                .iter()
                .map(|call| code.matches(call.as_str()).count())
                .sum::<usize>()
        })
        .sum()
}

#[test]
fn one_file_alone_asks_an_engine_to_write() {
    let mut writers = BTreeSet::new();
    for (path, text) in sources() {
        if module_of(&path) != "engine" && !is_test(&path) && engine_writes(&code(&text)) > 0 {
            writers.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    assert_eq!(
        writers,
        BTreeSet::from(["writer.rs".to_owned()]),
        "what is written passes agent/audit/writer.rs"
    );
    assert_eq!(
        engine_writes("patiently(|| self.agent.engine\n    .apply(x, y)); engine.as_ref().insert(z)"),
        2
    );
}

#[test]
fn the_checker_sees_planted_faults() {
    assert_eq!(crate_imports("use crate::{model::{Key, Plan}, agent};\ncrate::cli::x()").len(), 3);
    assert!(!violations("model", "use crate::agent::Link;").is_empty());
    assert!(!violations("merkle", "use crate::{model::Key, engine};").is_empty());
    assert!(!violations("coordinator", "sqlx::query(x)").is_empty());
    assert!(!violations("agent", "let now = std::time::Instant::now();").is_empty());
    assert!(violations("agent", "use crate::{model::Key, engine}; prost::Message").is_empty());
}
