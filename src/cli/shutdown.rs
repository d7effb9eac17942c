//! How a command is ended before it is done: a first signal asks it to stop, a second does not wait.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{EXIT_COULD_NOT_TELL, Failure};

/// Time for a run to tell what its agents have told already.
const GRACE: Duration = Duration::from_secs(2);

/// SIGXFSZ, by its number on Linux, the BSDs and macOS.
#[cfg(unix)]
const FILE_TOO_LARGE: i32 = 25;

/// INT and TERM, and HUP where it does not mean something else.
#[derive(Debug, Clone, Default)]
pub(super) struct Shutdown {
    asked: CancellationToken,
}

impl Shutdown {
    /// Listens from now on; called where a runtime is at hand. `hangup`: HUP ends the command like TERM.
    pub(super) fn listen(hangup: bool) -> Self {
        let shutdown = Self::default();
        let asked = shutdown.asked.clone();
        let mut signals = Signals::new(hangup);
        tokio::spawn(async move {
            loop {
                signals.next().await;
                if asked.is_cancelled() {
                    std::process::exit(i32::from(EXIT_COULD_NOT_TELL));
                }
                asked.cancel();
            }
        });
        shutdown
    }

    /// Cancelled by the first signal.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.asked
    }

    pub(super) fn is_requested(&self) -> bool {
        self.asked.is_cancelled()
    }

    /// Resolves with the first signal.
    pub(super) async fn requested(self) {
        self.asked.cancelled().await;
    }

    /// Work that nothing is lost with when it is dropped.
    pub(super) async fn or_drop<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            done = work => done,
            () = self.asked.cancelled() => Err(Failure::interrupted()),
        }
    }

    /// Work that ends by itself when it is asked to; `None` where it did not in time, and was dropped.
    pub(super) async fn or_grace<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let overdue = async {
            self.asked.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            done = work => Some(done),
            () = overdue => None,
        }
    }
}

#[cfg(unix)]
struct Signals(Vec<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Signals {
    fn new(hangup: bool) -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
        if hangup && !hangup_is_ignored() {
            kinds.push(SignalKind::hangup());
        }
        // A file that may not grow further (`ulimit -f`) is an error of the write then, and not the end of the process.
        let _ = signal(SignalKind::from_raw(FILE_TOO_LARGE));
        // Where a signal cannot be listened to, it ends the process as it does by default.
        Self(kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect())
    }

    async fn next(&mut self) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let each = self.0.iter_mut().map(|signal| Box::pin(signal.recv()));
        drop(futures::future::select_all(each).await);
    }
}

/// `nohup` starts a command so: it is to outlive its terminal.
#[cfg(unix)]
fn hangup_is_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
}

/// HUP is signal 1, the lowest bit of the mask.
#[cfg(unix)]
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new(_: bool) -> Self {
        Self
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn nohup_is_seen() {
        assert!(ignores_hangup("Name:\ttrueup\nSigIgn:\t0000000000001001\n"));
        assert!(
            !ignores_hangup("SigIgn:\t0000000000001000\n")
                && !ignores_hangup("")
                && !ignores_hangup("SigIgn: x")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_given_time_to_end_and_then_dropped() {
        let shutdown = Shutdown::default();
        assert_eq!(shutdown.or_grace(async { 1 }).await, Some(1));
        shutdown.asked.cancel();
        let ends = async {
            tokio::time::sleep(GRACE / 2).await;
            2
        };
        assert_eq!(shutdown.or_grace(ends).await, Some(2));
        assert_eq!(shutdown.or_grace(std::future::pending::<()>()).await, None);
        assert!(
            shutdown.or_drop(std::future::pending::<Result<(), _>>()).await.is_err_and(|f| f.interrupted)
        );
    }
}
