//! [`Poller`]: what the kernel tells a reactor, and how other threads wake it.

#[cfg(target_os = "linux")]
pub(super) use linux::Poller;
#[cfg(not(target_os = "linux"))]
pub(super) use none::Poller;

/// What a socket is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// It takes bytes again.
    Writable,
    /// Its peer sends no more. Whether it still reads shows when something is sent.
    HalfClosed,
    /// It is closed on both sides, or it broke.
    Closed,
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, OwnedFd};
    use std::time::Duration;

    use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

    use super::Readiness;

    /// Events taken from the kernel at a time.
    const EVENTS_MAX: usize = 256;

    /// The event that is no socket's: somebody woke it.
    const WAKE_TOKEN: u64 = u64::MAX;

    /// An epoll instance and an eventfd.
    pub(in super::super) struct Poller {
        epoll: OwnedFd,
        waker: OwnedFd,
    }

    impl Poller {
        pub(in super::super) fn new() -> io::Result<Poller> {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let waker = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&epoll, &waker, epoll::EventData::new_u64(WAKE_TOKEN), flags)?;
            Ok(Poller { epoll, waker })
        }

        /// Ends the current wait, or the next.
        pub(in super::super) fn wake(&self) {
            // It is edge-triggered and never read: it can only fail by being full, after 2^64.
            let _ = rustix::io::write(&self.waker, &1_u64.to_ne_bytes());
        }

        /// Waits until something happens, at most `longest`, and passes it on.
        pub(in super::super) fn wait(
            &self,
            longest: Option<Duration>,
            mut ready: impl FnMut(u64, Readiness),
        ) -> io::Result<()> {
            let mut room = [MaybeUninit::uninit(); EVENTS_MAX];
            let longest = longest.map(|wait| Timespec {
                tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            });
            let events = match epoll::wait(&self.epoll, &mut room, longest.as_ref()) {
                Ok((events, _)) => events,
                Err(rustix::io::Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let over = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            for event in events {
                let (data, flags) = (event.data.u64(), event.flags);
                if data == WAKE_TOKEN {
                    continue;
                }
                if flags.intersects(over) {
                    ready(data, Readiness::Closed);
                    continue;
                }
                if flags.contains(epoll::EventFlags::RDHUP) {
                    ready(data, Readiness::HalfClosed);
                }
                if flags.contains(epoll::EventFlags::OUT) {
                    ready(data, Readiness::Writable);
                }
            }
            Ok(())
        }

        /// Watches for a socket's end. Nothing is read: what a client sends after its request waits
        /// in the kernel, which bounds it. Nor is it watched for room, which it has at first: each
        /// new stream would wake the reactor at once.
        pub(in super::super) fn watch(&self, socket: impl AsFd, data: u64) -> io::Result<()> {
            let flags = epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
            Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(data), flags)?)
        }

        /// Watches a socket that took no more for taking bytes again, too; if it does by now, that
        /// is the next event. Edge-triggered: a slow one costs nothing until then.
        pub(in super::super) fn watch_full(&self, socket: impl AsFd, data: u64) -> io::Result<()> {
            let flags = epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
            Ok(epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(data), flags)?)
        }
    }
}

/// Systems without epoll leave all streams to the HTTP server.
#[cfg(not(target_os = "linux"))]
mod none {
    use std::io;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::Readiness;

    /// Nothing of this can be made.
    pub(in super::super) enum Poller {}

    impl Poller {
        pub(in super::super) fn new() -> io::Result<Poller> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(in super::super) fn wake(&self) {
            match *self {}
        }

        pub(in super::super) fn wait(
            &self,
            _: Option<Duration>,
            _: impl FnMut(u64, Readiness),
        ) -> io::Result<()> {
            match *self {}
        }

        pub(in super::super) fn watch(&self, _: impl AsFd, _: u64) -> io::Result<()> {
            match *self {}
        }

        pub(in super::super) fn watch_full(&self, _: impl AsFd, _: u64) -> io::Result<()> {
            match *self {}
        }
    }
}
