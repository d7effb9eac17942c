//! Signs of life to a peer that waits for rows: reading is paced, or pauses while a server is pressed.

use std::time::Duration;

use tokio::time::Instant;

use super::error::AgentError;
use super::link::Link;
use super::proto::frame::Kind;

/// The peer hears something this often.
const LIFE_EVERY: Duration = Duration::from_secs(5);

/// When the peer is to hear something next.
pub(super) struct Life<'l> {
    link: &'l Link,
    due: Instant,
}

impl<'l> Life<'l> {
    pub(super) fn of(link: &'l Link) -> Self {
        Self { link, due: Instant::now() + LIFE_EVERY }
    }

    /// The peer hears something while this is waited for, and no less where one wait follows another.
    pub(super) async fn through<T>(
        &mut self,
        wait: impl Future<Output = Result<T, AgentError>>,
    ) -> Result<T, AgentError> {
        tokio::pin!(wait);
        loop {
            let beat = async {
                tokio::time::sleep_until(self.due).await;
                self.link.send(Kind::Progress(0)).await
            };
            // What is waited for goes on while a beat is on its way: it may hold what others need.
            tokio::select! {
                done = &mut wait => return done,
                sent = beat => sent?,
            }
            self.due = Instant::now() + LIFE_EVERY;
        }
    }

    /// Something was sent.
    pub(super) fn shown(&mut self) {
        self.due = Instant::now() + LIFE_EVERY;
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::Close;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_waits_for_a_paused_source_does_not_give_it_up() {
        let (mut here, there) = Link::pair(Duration::from_secs(8));
        let work = async {
            let mut life = Life::of(&there);
            let pause = |seconds| async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                Ok(seconds)
            };
            let mut done = life.through(pause(3_600)).await?;
            // Many short waits are a long one.
            for _ in 0..100 {
                done += life.through(pause(1)).await?;
            }
            there.send(Kind::Close(Close {})).await?;
            Ok::<_, AgentError>(done)
        };
        let hear = async {
            let mut heard = 0;
            while let Kind::Progress(_) = here.recv().await.unwrap() {
                heard += 1;
            }
            heard
        };
        let (done, heard) = tokio::join!(work, hear);
        assert!(done.unwrap() == 3_700 && (735..=740).contains(&heard), "{heard}");
    }
}
