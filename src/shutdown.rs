//! Stopping: the first signal drains within a deadline, the second aborts.
//!
//! Every long task watches the token and is tracked, so that the end can be waited for. This room never ends
//! the process itself: it says with which exit code to.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long draining may take unless configured otherwise: less than the 30 s that orchestrators grant.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);

/// How the end came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything finished in time.
    Drained,
    /// The deadline passed with work unfinished; what was acknowledged is durable all the same.
    Deadline,
    /// A second signal came.
    Aborted,
}

impl End {
    /// The process's exit code for it.
    pub fn exit_code(self) -> u8 {
        match self {
            End::Drained => 0,
            End::Deadline => 1,
            End::Aborted => 130,
        }
    }
}

/// The end of the process, as everybody sees it. Clones are the same.
#[derive(Debug, Clone)]
pub struct Shutdown {
    drain: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
    deadline: Duration,
}

impl Shutdown {
    /// Nothing has ended yet; draining will take at most `deadline`.
    pub fn new(deadline: Duration) -> Shutdown {
        Shutdown {
            drain: CancellationToken::new(),
            abort: CancellationToken::new(),
            tasks: TaskTracker::new(),
            deadline,
        }
    }

    /// Cancelled when draining begins.
    pub fn token(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Where tasks are spawned that the end waits for.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Begins to drain, as the first signal does: for a room that cannot go on.
    pub fn begin(&self) {
        self.drain.cancel();
    }

    /// Gives up draining, as the second signal does.
    pub fn abort(&self) {
        self.drain.cancel();
        self.abort.cancel();
    }

    /// Watches for SIGTERM and SIGINT from now on.
    ///
    /// # Errors
    /// The system grants no signal handler.
    pub fn watch_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let this = self.clone();
        // Not tracked: it waits for a second signal while the others end.
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if this.drain.is_cancelled() {
                    tracing::warn!(signal = name, "aborting: what is unfinished is done again at the next start");
                    this.abort();
                    return;
                }
                tracing::info!(signal = name, deadline_s = this.deadline.as_secs(), "draining; a second signal aborts");
                this.begin();
            }
        });
        Ok(())
    }

    /// Waits for the beginning of the end, and then until all tracked tasks are done, the deadline has passed
    /// or a second signal has come.
    pub async fn ended(&self) -> End {
        self.drain.cancelled().await;
        self.tasks.close();
        tokio::select! {
            biased;
            () = self.abort.cancelled() => End::Aborted,
            () = self.tasks.wait() => End::Drained,
            () = tokio::time::sleep(self.deadline) => End::Deadline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drains_then_ends_or_gives_up() {
        let shutdown = Shutdown::new(DEADLINE_DEFAULT);
        let token = shutdown.token();
        shutdown.tasks().spawn(async move { token.cancelled().await });
        shutdown.begin();
        assert_eq!(shutdown.ended().await, End::Drained);

        let shutdown = Shutdown::new(Duration::from_millis(10));
        shutdown.tasks().spawn(std::future::pending::<()>());
        shutdown.begin();
        assert_eq!(shutdown.ended().await, End::Deadline);
        shutdown.abort();
        assert_eq!(shutdown.ended().await, End::Aborted);
        assert_ne!(End::Aborted.exit_code(), 0);
    }

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_aborts() {
        let shutdown = Shutdown::new(Duration::from_secs(60));
        shutdown.watch_signals().unwrap();
        shutdown.tasks().spawn(std::future::pending::<()>());
        let send = || {
            let pid = std::process::id().to_string();
            assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        };
        send();
        shutdown.token().cancelled().await;
        assert!(!shutdown.abort.is_cancelled());
        send();
        assert_eq!(shutdown.ended().await, End::Aborted);
    }
}
