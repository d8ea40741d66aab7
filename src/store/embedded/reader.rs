//! Reading beside the writer: a few connections, each used by one blocking task at a time.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::fault::while_reading;
use super::maintain;
use crate::store::StoreError;

/// Connections for reading: as many as readers can use beside the writer on a small machine.
const READERS: usize = 4;

/// The connections.
pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

/// A connection on loan; it comes back however its user ends.
struct Loan {
    conn: Option<Connection>,
    readers: Arc<Readers>,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.conn.take());
    }
}

impl Readers {
    /// Opens them.
    pub(super) fn open(path: &Path) -> Result<Readers, StoreError> {
        let idle = (0..READERS).map(|_| maintain::open_to_read(path)).collect::<Result<_, _>>()?;
        Ok(Readers { idle: Mutex::new(idle), permits: Arc::new(Semaphore::new(READERS)) })
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
        let loan = Loan { conn, readers: self.clone() };
        let task = tokio::task::spawn_blocking(move || {
            let result = loan.conn.as_ref().ok_or_else(closed).and_then(function);
            // Back before the next one is let in.
            drop(loan);
            drop(permit);
            result
        });
        task.await.map_err(|e| StoreError::Unavailable(format!("a reader ended: {e}")))?.map_err(while_reading)
    }
}
