//! Reading beside the writer: a few connections, each used by one blocking task at a time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::fault::while_reading;
use super::maintain;
use crate::store::StoreError;

/// Connections for reading: as many as readers can use beside the writer on a small machine. Each holds memory from
/// its first use on, so that all but one are opened when as many read at once.
const READERS: usize = 4;

/// The connections.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

/// A connection on loan; it comes back however its user ends.
struct Loan {
    conn: Option<Connection>,
    readers: Arc<Readers>,
}

impl Loan {
    fn conn(&mut self) -> Result<&Connection, StoreError> {
        match self.conn {
            Some(ref conn) => Ok(conn),
            None => Ok(self.conn.insert(maintain::open_to_read(&self.readers.path)?)),
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.conn.take());
    }
}

impl Readers {
    /// Opens the first, which shows that the store can be read.
    pub(super) fn open(path: &Path) -> Result<Readers, StoreError> {
        let idle = Mutex::new(vec![maintain::open_to_read(path)?]);
        Ok(Readers { path: path.to_owned(), idle, permits: Arc::new(Semaphore::new(READERS)) })
    }

    /// Runs `function` on one of them, where blocking is allowed.
    pub(super) async fn read<T, F>(self: &Arc<Readers>, function: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let closed = || StoreError::Unavailable("it is being closed".into());
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| closed())?;
        let conn = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut loan = Loan { conn, readers: self.clone() };
        let task = tokio::task::spawn_blocking(move || {
            let result = loan.conn().and_then(function);
            // Back before the next one is let in.
            drop(loan);
            drop(permit);
            result
        });
        task.await.map_err(|e| StoreError::Unavailable(format!("a reader ended: {e}")))?.map_err(while_reading)
    }
}
