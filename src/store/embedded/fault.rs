//! What SQLite's faults mean to those who use the store.

use rusqlite::ffi::{self, ErrorCode};

use super::codec::damaged;
use crate::store::StoreError;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        let text = error.to_string();
        let rusqlite::Error::SqliteFailure(failure, _) = &error else {
            // A column of another type than was written, a text that is not UTF-8, a row that must be there.
            return damaged("a row", text);
        };
        match failure.code {
            // The log's index could not grow: the same lack of space by another name.
            _ if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => StoreError::DiskFull,
            ErrorCode::DiskFull => StoreError::DiskFull,
            ErrorCode::SystemIoFailure => StoreError::Broken(text),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => damaged("its pages", text),
            ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch => damaged("a relation", text),
            ErrorCode::TooBig => damaged("a value", text),
            _ => StoreError::Unavailable(text),
        }
    }
}

/// A fault while reading: what cannot be read now is no reason to stop acknowledging what can be written.
pub(super) fn while_reading(fault: StoreError) -> StoreError {
    match fault {
        StoreError::Broken(why) => StoreError::Unavailable(format!("reading failed: {why}")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t45_each_fault_of_the_disk_is_told_apart() {
        let of = |code| StoreError::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        assert_eq!(of(ffi::SQLITE_FULL), StoreError::DiskFull);
        assert_eq!(of(ffi::SQLITE_IOERR_SHMSIZE), StoreError::DiskFull);
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_DIR_FSYNC] {
            assert!(matches!(of(code), StoreError::Broken(_)));
            assert!(matches!(while_reading(of(code)), StoreError::Unavailable(_)));
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_CORRUPT_INDEX] {
            assert!(matches!(of(code), StoreError::Damaged { .. }));
        }
        assert!(of(ffi::SQLITE_BUSY).is_transient() && !of(ffi::SQLITE_IOERR_FSYNC).is_transient());
    }
}
