//! Another program as a guest of a test: started with its output in a file, asked until it is ready, and gone
//! when the guard is dropped, however the test ends.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a program may take to be ready on a machine busy with other tests.
const START: Duration = Duration::from_secs(30);
/// Between two looks at a condition: much shorter than anything that is measured with it.
const LOOK: Duration = Duration::from_millis(5);

/// A running program.
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    stays: bool,
}

impl Program {
    /// Starts `command`, with both its outputs appended to `log`.
    pub fn start(mut command: Command, log: &Path) -> anyhow::Result<Program> {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let output = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command
            .spawn()
            .with_context(|| format!("{name} does not start: tests/install.sh installs what the tests need"))?;
        Ok(Program { name, child, log: log.to_owned(), stays: false })
    }

    /// Waits until `ready` says so; fails at once if the program ends, with what it last said.
    pub async fn until(&mut self, ready: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
        let mut ready = ready;
        let start = Instant::now();
        while !ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before it was ready; it said:\n{}", self.name, self.last_words());
            }
            if start.elapsed() > START {
                bail!("{} was not ready in {} s; it said:\n{}", self.name, START.as_secs(), self.last_words());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Everything it said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of what it said.
    pub fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, as in `TERM`.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.id().to_string()).status()?;
        if !status.success() {
            bail!("{} (process {}) could not be sent {signal}", self.name, self.id());
        }
        Ok(())
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > patience {
                bail!("{} did not end in {patience:?}; it said:\n{}", self.name, self.last_words());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends it without notice, as a power cut would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Lets it run on when the guard is dropped.
    pub fn stay(&mut self) {
        self.stays = true;
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.stays {
            // It may have ended already, and there is nobody to tell.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Looks until there is something, for at most `patience`.
pub async fn eventually<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        let found = look().await;
        if let Ok(Some(found)) = found {
            return Ok(found);
        }
        if start.elapsed() > patience {
            found?;
            bail!("{what}: not in {} s", patience.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A port of the loopback interface on which nobody listens.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
