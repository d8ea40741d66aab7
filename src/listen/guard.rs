//! A connection with the clock running and every byte scanned before the HTTP library sees it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::Limits;
use super::scan::{Phase, Scanner};
use crate::metrics::{Limit, Metrics};

/// What the HTTP library is given instead of a faulty byte: no place in a head or in the framing of a body
/// may hold it, so the library answers 400 where it can, and closes.
const POISON: u8 = 0;
/// How much longer than the service a body's bytes are waited for here, so that the service can answer first.
const BODY_GRACE: Duration = Duration::from_secs(1);

pub(super) struct Guard<T> {
    inner: T,
    scanner: Scanner,
    poisoned: bool,
    /// Wakes at `late` or before: a deadline that moves on, as it does with each request, moves no timer.
    reading: Pin<Box<Sleep>>,
    late: Instant,
    /// The phase, and the number of the request in it, that `late` is for.
    timed: (Phase, u64),
    writing: Option<Pin<Box<Sleep>>>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
}

impl<T> Guard<T> {
    pub(super) fn new(inner: T, limits: Arc<Limits>, metrics: Arc<Metrics>) -> Guard<T> {
        // A connection that has said nothing yet has only the time of a head.
        let late = Instant::now() + limits.head_time;
        Guard {
            inner,
            scanner: Scanner::new(&limits),
            poisoned: false,
            reading: Box::pin(sleep_until(late)),
            late,
            timed: (Phase::Between, 0),
            writing: None,
            limits,
            metrics,
        }
    }

    /// Nothing came: whether the time for it is over.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = (self.scanner.phase(), self.scanner.requests());
        if now != self.timed {
            self.timed = now;
            let time = match now.0 {
                Phase::Between => self.limits.idle_time,
                Phase::Head => self.limits.head_time,
                Phase::Body => self.limits.body_time + BODY_GRACE,
            };
            self.late = Instant::now() + time;
            if self.late < self.reading.deadline() {
                self.reading.as_mut().reset(self.late);
            }
        }
        ready!(self.reading.as_mut().poll(context));
        while self.reading.deadline() < self.late {
            self.reading.as_mut().reset(self.late);
            ready!(self.reading.as_mut().poll(context));
        }
        match now.0 {
            Phase::Between => {}
            Phase::Head => self.metrics.limited(Limit::HeadTime),
            Phase::Body => self.metrics.limited(Limit::BodyTime),
        }
        Poll::Ready(())
    }

    /// The outcome of a write, late if it has waited too long.
    fn timed_write<R>(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if wrote.is_ready() {
            self.writing = None;
            return wrote;
        }
        let time = self.limits.write_time;
        ready!(self.writing.get_or_insert_with(|| Box::pin(sleep(time))).as_mut().poll(context));
        self.metrics.limited(Limit::WriteTime);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.poisoned {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.inner).poll_read(context, buffer) {
            Poll::Pending => {
                ready!(this.poll_late(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                if let Err(fault) = this.scanner.scan(&buffer.filled()[before..]) {
                    this.poisoned = true;
                    this.metrics.limited(fault.limit);
                    buffer.filled_mut()[before + fault.at] = POISON;
                    buffer.set_filled(before + fault.at + 1);
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guard<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.timed_write(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.timed_write(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.timed_write(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.inner).poll_shutdown(context);
        self.timed_write(context, closed)
    }
}
