//! House rules, read from the sources.

use std::path::Path;

use super::architecture::{code, is_test, sources};

const LINES_MAX: usize = 500;

#[test]
fn every_file_says_what_it_is_for() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{} does not begin with a `//!` line", path.display());
    }
}

#[test]
fn files_fit_in_a_head() {
    for (path, text) in sources() {
        let lines = text.split("#[cfg(test)]").next().unwrap_or_default().lines().count();
        let name = path
            .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let is_test = name.ends_with("tests.rs");
        assert!(is_test || lines <= LINES_MAX, "{name} has {lines} lines before its tests: split it by idea");
    }
}

#[test]
fn nothing_is_left_open() {
    for (path, text) in sources() {
        for word in ["todo!(", "unimplemented!(", "FIXME", "XXX", "#[ignore]"] {
            assert!(!text.contains(word), "{} holds {word}", path.display());
        }
    }
}

/// Modules with types whose methods still lie in several files. A module leaves this list when it has none any more.
const SPREAD: &[&str] = &["checks", "engine", "ledger", "locate", "merkle", "model"];

/// The types that a file gives methods to and does not define.
fn strangers(code: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let defined: Vec<String> = ["struct ", "enum ", "trait ", "type "]
        .iter()
        .flat_map(|keyword| {
            code.match_indices(keyword).map(|(at, keyword)| word(&code[at + keyword.len()..]))
        })
        .collect();
    code.lines()
        .filter_map(|line| line.strip_prefix("impl"))
        .filter(|rest| !rest.contains(" for "))
        .filter_map(|rest| {
            // Behind the parameters of the impl, whose brackets may be nested.
            let mut depth = 0;
            let name = rest.find(|c| {
                depth += i32::from(c == '<') - i32::from(c == '>');
                depth == 0 && c == ' '
            })?;
            let path = rest[name + 1..].split(['<', ' ']).next()?;
            Some(path.rsplit("::").next()?.to_owned())
        })
        .filter(|name| !defined.contains(name))
        .collect()
}

#[test]
fn the_methods_of_a_type_stand_in_its_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (path, text) in sources() {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        let spread = SPREAD.iter().any(|module| name.starts_with(module));
        let strangers = if spread || is_test(&path) { Vec::new() } else { strangers(&code(&text)) };
        assert!(strangers.is_empty(), "{name} gives methods to {strangers:?}, which it does not define");
    }
    let planted = "struct A;\nimpl A {\nimpl<'a, T: Into<B>> super::C<'a, T> {\nimpl X for D {\nimpl E<'_> {";
    assert_eq!(strangers(planted), ["C", "E"]);
}

#[test]
fn every_integration_test_file_is_listed() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = std::fs::read_to_string(dir.join("main.rs")).unwrap();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            stem == "main" || main.contains(&format!("mod {stem};")),
            "tests/it/{stem} is not listed in main.rs"
        );
    }
}

/// Closing any handle of a file takes away the locks that SQLite holds on it in this process: see `src/ledger/file.rs`.
#[test]
fn nothing_opens_a_database_file_beside_sqlite() {
    // A file that is new, and a rollback journal, on which there are no locks.
    let fine = ["options.open(path)", "File::open(self.beside(\"-journal\"))"];
    for (path, text) in sources() {
        let name = path.to_string_lossy().into_owned();
        if !["/src/ledger/", "/src/engine/sqlite/"].iter().any(|folder| name.contains(folder)) {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code = code.replace("LedgerFile::open", "");
        for line in code.lines().filter(|line| !fine.iter().any(|fine| line.contains(fine))) {
            for word in [
                "File::open",
                ".open(path)",
                "File::create",
                "fs::read(",
                "fs::read_to_string",
                "fs::copy",
                "fs::write",
            ] {
                assert!(!line.contains(word), "{name} opens a file: {line}");
            }
        }
    }
    let made =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ledger/file.rs")).unwrap();
    assert!(made.contains("options.create_new(true)") && made.matches("OpenOptions::new()").count() == 1);
}
