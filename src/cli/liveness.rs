//! Processes told apart from all others, and whether one still lives.

use std::path::Path;

/// What can be said of a process that another record names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Lives,
    /// It is gone for certain: its number is free, or another process has it.
    Gone,
    /// It runs elsewhere, or this system does not show the processes of others.
    NotKnown,
}

/// This process: the boot of the machine, the namespace of its number, the number, and when it was started. Empty where
/// the system does not tell.
pub(super) fn this_process() -> String {
    let parts =
        || Some(format!("{}/{}/{}", here()?, std::process::id(), started(Path::new("/proc/self/stat"))?.1));
    parts().unwrap_or_default()
}

/// Whether the process of this name lives.
pub(super) fn life(process: &str) -> Life {
    let Some((place, number, start)) = split(process) else { return Life::NotKnown };
    if here().as_deref() != Some(place) || !others_are_shown() {
        return Life::NotKnown;
    }
    let folder = Path::new("/proc").join(number);
    match started(&folder.join("stat")) {
        // One that has ended, and that its parent has not asked about, has a number still.
        Some((state, now)) if now == start && state != 'Z' && state != 'X' => Life::Lives,
        Some(_) => Life::Gone,
        None if folder.exists() => Life::NotKnown,
        None => Life::Gone,
    }
}

fn split(process: &str) -> Option<(&str, &str, &str)> {
    let (rest, start) = process.rsplit_once('/')?;
    let (place, number) = rest.rsplit_once('/')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(number) && is_number(start)).then_some((place, number, start))
}

/// Where numbers of processes mean the same: this boot of this kernel, and this namespace.
fn here() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{}/{}", boot.trim(), namespace.display()))
}

/// Whether processes of other users have an entry in `/proc`.
fn others_are_shown() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let hides = mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some("/proc")
            && line.contains("hidepid=")
            && !line.contains("hidepid=0")
            && !line.contains("hidepid=off")
    });
    !hides && Path::new("/proc/1").exists()
}

/// The state of a process, and when it was started, in ticks since the boot.
fn started(stat: &Path) -> Option<(char, String)> {
    parsed(&std::fs::read_to_string(stat).ok()?)
}

fn parsed(stat: &str) -> Option<(char, String)> {
    // The name in brackets may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.to_owned()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_and_its_end_is_seen() {
        let me = this_process();
        assert_eq!(life(&me), Life::Lives, "{me}");
        let (place, number, start) = split(&me).unwrap();
        // Its number was given to another.
        assert_eq!(life(&format!("{place}/{number}/{start}9")), Life::Gone);
        // Another boot, another namespace, nothing at all.
        assert_eq!(life(&format!("x{place}/{number}/{start}")), Life::NotKnown);
        assert_eq!(life(""), Life::NotKnown);
        assert_eq!(life("a/b/c/d"), Life::NotKnown);

        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let stat = Path::new("/proc").join(child.id().to_string()).join("stat");
        let named = format!("{place}/{}/{}", child.id(), started(&stat).unwrap().1);
        assert_eq!(life(&named), Life::Lives);
        child.kill().unwrap();
        // Killed, and its number not free yet.
        let began = std::time::Instant::now();
        while life(&named) != Life::Gone {
            assert!(began.elapsed() < std::time::Duration::from_secs(10));
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(stat.exists());
        child.wait().unwrap();
        assert_eq!(life(&named), Life::Gone);
    }

    #[test]
    fn a_name_with_brackets_and_spaces_is_read() {
        let stat = "12 (a ) (b) R 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 8812 1 2 3";
        assert_eq!(parsed(stat), Some(('R', "8812".to_owned())));
        assert_eq!(parsed("12 (a"), None);
    }
}
