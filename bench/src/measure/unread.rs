//! What streams take whose clients do not read: in the kernel above all, which takes what it is
//! given until a socket's buffers are full.

use super::fanout::LAST_DELIVERY_TIMEOUT;
use super::{Measured, Settings};
use crate::clock;
use crate::load::publisher::{Job, Pace, publish};
use crate::load::subscribers::{Plan, Subscribers};
use crate::process;
use crate::server::Kind;

/// Streams.
const STREAMS: usize = 2_000;
/// Events, their bytes, and how many a second.
const EVENTS: u64 = 180;
const EVENT_BYTES: usize = 16 << 10;
const RATE: f64 = 50.0;
/// Receive buffers of the clients, in bytes: left to the kernel, and small ones, beside which
/// nearly everything in the kernel's memory is the server's end.
pub(crate) const RECEIVE_BUFFERS: [Option<usize>; 2] = [None, Some(4 << 10)];
const MIB: f64 = (1 << 20) as f64;

/// Memory of 2,000 streams that are open and never read, after events of 16 KiB, and how long the
/// events took to a stream of the same topic that does read.
///
/// # Errors
/// When the stream that reads did not get everything, once and in order.
pub(crate) fn unread(settings: &Settings, kind: &Kind, receive_buffer: Option<usize>) -> Measured {
    let mut samples = settings.samples("unread", kind);
    let (server, run) = settings.start(kind)?;
    let count = settings.at_most(if settings.quick { 200 } else { STREAMS });
    server.prepare(&run, 1)?;
    let plans = vec![Plan { receive_buffer, ..Plan::of(0..1) }; count];
    let (silent, _) = Subscribers::opened(&server, &run, &plans, settings.threads)?;
    silent.fall_silent();
    let (neighbour, _) = Subscribers::opened(&server, &run, &Plan::spread(1, 1), 1)?;
    std::thread::sleep(settings.rest());

    let pids = server.pids();
    let pid = *pids.first().ok_or("whose memory? name its --pid")?;
    process::reset_peak(pid);
    let [resident, _] = process::resident_and_peak(pid)?;
    let kernel = || [process::socket_buffer_bytes(), process::kernel_bytes()];
    let [buffers, slab] = kernel();
    let job = Job {
        server: &server,
        run: &run,
        topics: 1,
        bytes: EVENT_BYTES,
        connections: 1,
        begins: clock::now(),
    };
    let published = publish(&job, Pace::rate(RATE, EVENTS as f64 / RATE, 1))?;
    neighbour.until_delivered(EVENTS, LAST_DELIVERY_TIMEOUT)?;
    std::thread::sleep(settings.rest());
    let after = kernel();
    let [_, peak] = process::resident_and_peak(pid)?;
    let unsent = process::unsent_bytes(server.streams.port());
    let neighbour = neighbour.close_complete(&published.counts)?;
    silent.close()?;

    let buffer = match receive_buffer {
        None => "".to_owned(),
        Some(bytes) => format!(" with receive buffers of {} KiB", bytes >> 10),
    };
    let case = format!("{count} streams that never read{buffer}, {EVENTS} events of 16 KiB");
    samples.add(&case, "kernel TCP memory MiB (sockstat), both ends", (after[0] - buffers) / MIB);
    samples.add(&case, "kernel slab MiB, both ends", (after[1] - slab) / MIB);
    samples.add(&case, "bytes unsent or unacknowledged MiB", unsent / MIB);
    samples.add(&case, "user memory MiB, most", (peak - resident) / MIB);
    samples.add(&case, "neighbour's latency p99 ms", neighbour.latencies.milliseconds(0.99));
    Ok(samples.all)
}
