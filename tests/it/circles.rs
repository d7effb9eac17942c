//! Imports between the files of a folder do not run in circles. Read from the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::architecture::{code, is_test, sources};

/// Folders whose files still import each other in circles, by the files of the circles. A folder leaves this list when it
/// has none any more; nothing is added to it.
const KNOWN: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "args",
            "backfill",
            "check",
            "checking",
            "command",
            "config",
            "dashboard",
            "endpoint",
            "evidence",
            "evidence_args",
            "recorder",
            "serve",
            "terminal",
        ],
    ),
    ("config", &["check", "operate", "resolve"]),
    ("engine", &["measure", "mysql", "postgres", "sqlite"]),
    ("engine/mysql", &["errors", "lane", "lanes", "scan", "session"]),
    (
        "engine/postgres",
        &["batch", "errors", "known", "lane", "live", "path", "session", "statement", "unreadable"],
    ),
    ("engine/sqlite", &["params", "spelling"]),
    ("locate", &["descend", "facing", "locator", "sketching", "tell"]),
    ("merkle", &["leaf", "run", "strand", "tree"]),
    ("report", &["page", "steps_page"]),
];

/// The module of a file: `["agent", "session", "link"]`; of a `mod.rs` its folder's.
fn module(path: &Path) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut parts: Vec<String> = path
        .strip_prefix(root)
        .unwrap()
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_str().unwrap().to_owned())
        .collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// Every path that begins with `crate` or `super`, with the groups in braces unfolded.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$' || c == ':') {
                continue;
            }
            unfold(&code[at..], &mut Vec::new(), &mut found);
        }
    }
    found
}

/// Reads one tree of a `use`, and says how much of the text it was.
fn unfold(text: &str, so_far: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = so_far.len();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut inside = 1;
            let mut read = 0;
            while inside > 0 && read < group.len() {
                let c = group[read..].chars().next().unwrap();
                if c == '}' {
                    inside -= 1;
                    read += 1;
                } else if c.is_whitespace() || c == ',' {
                    read += c.len_utf8();
                } else {
                    let taken = unfold(&group[read..], so_far, found);
                    read += taken.max(c.len_utf8());
                }
            }
            so_far.truncate(depth);
            return at + 1 + read;
        }
        let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        at += word.len();
        if !word.is_empty() {
            so_far.push(word);
        }
        if text[at..].starts_with("::") {
            at += 2;
            continue;
        }
        found.push(so_far.clone());
        so_far.truncate(depth);
        return at;
    }
}

/// Where a path leads, from a module.
fn absolute(path: &[String], from: &[String]) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    if first == "crate" {
        return Some(rest.to_vec());
    }
    let supers = path.iter().take_while(|part| *part == "super").count();
    let mut base = from.to_vec();
    base.truncate(from.len().checked_sub(supers)?);
    base.extend(path[supers..].iter().cloned());
    Some(base)
}

/// For each folder, which of its files import which.
fn imports(files: &[(Vec<String>, String)]) -> BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>> {
    let modules: BTreeSet<Vec<String>> = files.iter().map(|(module, _)| module.clone()).collect();
    let mut folders: BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (from, code) in files {
        for path in paths(code) {
            let Some(mut to) = absolute(&path, from) else { continue };
            while !to.is_empty() && !modules.contains(&to) {
                to.pop();
            }
            let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            // One of them is the folder of the other: that is the folder's own business.
            if let (Some(a), Some(b)) = (from.get(shared), to.get(shared)) {
                let folder = folders.entry(from[..shared].to_vec()).or_default();
                folder.entry(a.clone()).or_default().insert(b.clone());
            }
        }
    }
    folders
}

/// The files that can be reached from themselves.
fn in_circles(imports: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let reaches = |start: &String| {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&String> = imports.get(start).into_iter().flatten().collect();
        while let Some(next) = todo.pop() {
            if next == start {
                return true;
            }
            if seen.insert(next) {
                todo.extend(imports.get(next).into_iter().flatten());
            }
        }
        false
    };
    imports.keys().filter(|file| reaches(file)).cloned().collect()
}

#[test]
fn files_of_a_folder_import_each_other_in_no_circle() {
    let files: Vec<(Vec<String>, String)> = sources()
        .into_iter()
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| (module(&path), code(&text)))
        .collect();
    let mut wrong = Vec::new();
    let mut known: BTreeMap<&str, BTreeSet<&str>> =
        KNOWN.iter().map(|(folder, files)| (*folder, files.iter().copied().collect())).collect();
    for (folder, imports) in imports(&files) {
        let name = folder.join("/");
        let circles = in_circles(&imports);
        let listed = known.remove(name.as_str()).unwrap_or_default();
        let found: BTreeSet<&str> = circles.iter().map(String::as_str).collect();
        if found != listed {
            let arrows: Vec<String> = circles
                .iter()
                .map(|file| {
                    let to: Vec<&str> =
                        imports[file].iter().filter(|to| circles.contains(*to)).map(String::as_str).collect();
                    format!("    {file} -> {}", to.join(", "))
                })
                .collect();
            wrong.push(format!("src/{name}: in circles {found:?}, listed {listed:?}\n{}", arrows.join("\n")));
        }
    }
    wrong.extend(known.keys().map(|folder| format!("src/{folder} is listed and has no circle any more")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_checker_of_circles_sees_planted_ones() {
    let file = |module: &[&str], code: &str| {
        (module.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>(), code.to_owned())
    };
    let of = |files: &[(Vec<String>, String)], folder: &[&str]| {
        let folder: Vec<String> = folder.iter().map(|part| (*part).to_owned()).collect();
        imports(files).get(&folder).map(in_circles).unwrap_or_default().into_iter().collect::<Vec<_>>()
    };
    let circle = [
        file(&["x", "a"], "use super::b::B;"),
        file(&["x", "b"], "use crate::x::{c::{C, D}, other};"),
        file(&["x", "c"], "fn f() { super::a::g() }"),
        file(&["x", "other"], ""),
    ];
    assert_eq!(of(&circle, &["x"]), ["a", "b", "c"]);
    let folders = [
        file(&["x", "one", "a"], "use super::super::two::b::B;"),
        file(&["x", "two", "b"], "use crate::x::one::a::A;"),
        file(&["x", "two", "c"], "use super::b::B;"),
    ];
    assert_eq!(of(&folders, &["x"]), ["one", "two"]);
    assert!(of(&folders, &["x", "two"]).is_empty());
    // What the folder itself gives out is no import of a file.
    let none = [
        file(&["x"], "pub use a::A;"),
        file(&["x", "a"], "use super::b::B;"),
        file(&["x", "b"], "use super::A;"),
    ];
    assert!(of(&none, &["x"]).is_empty());
}
