//! Reading a body: bounded by bytes, by time, and by what all bodies together may hold (T-04, T-10).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body as _, Bytes, Incoming};

use super::respond::Refusal;
use crate::metrics::{Limit, Metrics};

/// How much of a refused body is read and dropped, so that the sender gets to read the answer: a connection
/// closed on unread bytes is reset, and the reset can overtake the answer.
const LINGER_BYTES: usize = 2 * 1024 * 1024;
/// For how long.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes of one body, counted among those of all.
pub(super) struct Buffered<'a> {
    pub bytes: Bytes,
    reserved: Reserved<'a>,
}

/// A share of the bytes that all bodies may hold; given back when dropped.
struct Reserved<'a> {
    all: &'a AtomicUsize,
    here: usize,
}

impl Reserved<'_> {
    /// Takes `more`; nothing is taken beyond `limit`.
    fn grow(&mut self, more: usize, limit: usize) -> bool {
        let before = self.all.fetch_add(more, Ordering::Relaxed);
        self.here += more;
        before + more <= limit
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.here, Ordering::Relaxed);
    }
}

impl Buffered<'_> {
    /// How many bytes are held.
    pub(super) fn held(&self) -> usize {
        self.reserved.here
    }
}

/// Reads `body` whole. Memory is taken as bytes arrive, never for a length that was only declared.
pub(super) async fn read<'a>(
    body: &mut Incoming,
    limit: usize,
    time: Duration,
    all: &'a AtomicUsize,
    all_limit: usize,
    metrics: &Metrics,
) -> Result<Buffered<'a>, Refusal> {
    let reserved = Reserved { all, here: 0 };
    if body.size_hint().lower() > limit as u64 {
        metrics.limited(Limit::Body);
        return Err(Refusal::TooLarge { limit });
    }
    if body.is_end_stream() {
        return Ok(Buffered { bytes: Bytes::new(), reserved });
    }
    match tokio::time::timeout(time, frames(body, limit, reserved, all_limit, metrics)).await {
        Ok(read) => read,
        Err(_) => {
            metrics.limited(Limit::BodyTime);
            Err(Refusal::BodySlow)
        }
    }
}

async fn frames<'a>(
    body: &mut Incoming,
    limit: usize,
    mut reserved: Reserved<'a>,
    all_limit: usize,
    metrics: &Metrics,
) -> Result<Buffered<'a>, Refusal> {
    let mut first = Bytes::new();
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::BodyBroken)?.into_data() else {
            return Err(Refusal::BodyBroken);
        };
        if reserved.here + data.len() > limit {
            metrics.limited(Limit::Body);
            return Err(Refusal::TooLarge { limit });
        }
        if !reserved.grow(data.len(), all_limit) {
            metrics.limited(Limit::Buffered);
            return Err(Refusal::Busy);
        }
        // Most bodies come in one piece, which is then not copied.
        if first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    let bytes = if rest.is_empty() { first } else { rest.into() };
    Ok(Buffered { bytes, reserved })
}

/// Drops what is left of a refused body, for a while.
pub(super) fn linger(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    // Not waited for: it ends with its connection or after a second, whichever is first.
    tokio::spawn(tokio::time::timeout(LINGER, async move {
        let mut dropped = 0;
        while let Some(Ok(frame)) = body.frame().await {
            dropped += frame.data_ref().map_or(0, Bytes::len);
            if dropped > LINGER_BYTES {
                return;
            }
        }
    }));
}
