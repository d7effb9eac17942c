//! Hints name the options of commands; what a check is told in is the keys of its file.

/// Options of commands, and the key of a table in the file.
const KEYS: [(&str, &str); 3] = [("--exclude ", "exclude"), ("--as-text ", "as_text"), ("--key ", "key")];

/// The same hint in the words of the file.
pub(super) fn of_file(hint: &str) -> String {
    let mut out = hint
        .replace("--assume-utc", "assume_utc = true")
        .replace("with --from and --to", "by a window of the check");
    for (option, key) in KEYS {
        while let Some((before, rest)) = out.split_once(option) {
            let end =
                [", ", "; ", " or "].iter().filter_map(|mark| rest.find(mark)).min().unwrap_or(rest.len());
            let (names, behind) = rest.split_at(end);
            let names: Vec<String> = names.split(',').map(|name| format!("\"{name}\"")).collect();
            out = format!("{before}{key} = [{}]{behind}", names.join(", "));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_keys() {
        for (hint, expected) in [
            (
                "leave it out with --exclude c, or compare the text forms with --as-text c",
                "leave it out with exclude = [\"c\"], or compare the text forms with as_text = [\"c\"]",
            ),
            ("--assume-utc reads it", "assume_utc = true reads it"),
            ("leave it out with --exclude a b", "leave it out with exclude = [\"a b\"]"),
            ("look at the server's log", "look at the server's log"),
        ] {
            assert_eq!(of_file(hint), expected);
        }
    }
}
