//! The record read by another process than the daemon, beside it: no lock is taken, and nothing can be written.

use std::path::Path;
use std::sync::Arc;

use super::reader::Readers;
use super::{answer, file, list, maintain, schema};
use crate::image::{Host, Repository, Tag};
use crate::policy::violation::Violation;
use crate::policy::{Answer, Question, TagRecord};
use crate::store::{Page, Paging, StoreError, ViolationFilter, ViolationRow};

/// A store that is only read. Its methods are those of [`crate::store::Store`] that ask.
pub struct ReadOnly {
    readers: Arc<Readers>,
}

impl ReadOnly {
    /// Opens the store at `path`, whoever holds it.
    ///
    /// # Errors
    /// As [`super::EmbeddedStore::open`], but never [`StoreError::InUse`]. A store of an older format is not read:
    /// the daemon brings it up to date.
    pub fn open(path: &Path) -> Result<ReadOnly, StoreError> {
        let path = &file::resolve(path);
        let (_, format) = maintain::open_known(path)?;
        let newest = schema::STEPS.len();
        if usize::try_from(format).is_ok_and(|format| format < newest) {
            let why = format!("it has format {format}, and the daemon brings it to {newest} when it starts");
            return Err(file::unusable(path, why));
        }
        Ok(ReadOnly { readers: Arc::new(Readers::open(path)?) })
    }

    /// Answers from the record; manifests and configs that are not there are left out.
    ///
    /// # Errors
    /// The store's.
    pub async fn answer(
        &self,
        repository: &Repository,
        questions: Vec<Question>,
    ) -> Result<Vec<(Question, Answer)>, StoreError> {
        let repository = repository.clone();
        self.readers.read(move |conn| answer::answer(conn, &repository, questions)).await
    }

    /// The tags on record in name order, gone ones included.
    ///
    /// # Errors
    /// The store's.
    pub async fn tags(
        &self,
        repository: &Repository,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<Vec<(Tag, TagRecord)>, StoreError> {
        let repository = repository.clone();
        self.readers.read(move |conn| answer::tags(conn, &repository, after.as_ref(), limit)).await
    }

    /// The open violations of these tags.
    ///
    /// # Errors
    /// The store's.
    pub async fn open_violations(
        &self,
        repository: &Repository,
        tags: Vec<Option<Tag>>,
    ) -> Result<Vec<Violation>, StoreError> {
        let repository = repository.clone();
        self.readers.read(move |conn| answer::open_violations(conn, &repository, &tags)).await
    }

    /// The repositories on record.
    ///
    /// # Errors
    /// The store's.
    pub async fn repositories(
        &self,
        registry: Option<&Host>,
        after: Option<Repository>,
        limit: usize,
    ) -> Result<Vec<Repository>, StoreError> {
        let registry = registry.cloned();
        self.readers.read(move |conn| list::repositories(conn, registry.as_ref(), after.as_ref(), limit)).await
    }

    /// The violations on record, newest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn violations(&self, filter: ViolationFilter, paging: Paging) -> Result<Page<ViolationRow>, StoreError> {
        self.readers.read(move |conn| list::violations(conn, &filter, &paging)).await
    }
}
