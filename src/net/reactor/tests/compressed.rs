//! Streams that are compressed, and what is too large to be compressed by a reactor.

use super::*;
use crate::wire::{Encoding, Speech};

impl World {
    /// A stream of the first topic comes whose bytes are encoded so.
    fn come_in(&mut self, encoding: Encoding) -> FakeSocket {
        let socket = FakeSocket::default();
        socket.0.borrow_mut().room = usize::MAX;
        let mut adoption = self.adoption(&[(0, 0)], None, VecDeque::new(), socket.clone());
        let wire = Wire::Sse { named_heartbeat: false };
        adoption.terms = self.endings.open_terms(Speech { wire, encoding });
        self.streams.adopt(adoption, self.now).unwrap();
        socket
    }
}

fn size(socket: &FakeSocket) -> usize {
    socket.0.borrow().written.len()
}

#[test]
fn what_is_large_is_compressed_elsewhere_and_once_while_others_go_on() {
    let mut world = World::on(Hub::keeping_pieces(), 1);
    let encodings = [Encoding::Gzip, Encoding::Gzip, Encoding::Zstd, Encoding::Identity];
    let sockets = encodings.map(|encoding| world.come_in(encoding));
    // What is small is compressed here.
    world.publish(0, 1_000);
    world.work();
    assert!(world.asker.1.lock().unwrap().is_empty());
    let before = sockets.each_ref().map(size);
    assert!((1..500).contains(&before[0]) && before[3] > 1_000, "{before:?}");

    world.publish(0, 300 << 10);
    world.work();
    // More of the topic does not have it compressed again.
    world.publish(0, 1_000);
    world.work();
    let now = sockets.each_ref().map(size);
    assert_eq!(now[..3], before[..3], "these wait");
    assert!(now[3] > 300 << 10, "this one has nothing to wait for");
    world.pass(HEARTBEAT);
    assert!(sockets[..3].iter().zip(&before).all(|(socket, before)| size(socket) > *before));
    let silent = sockets.each_ref().map(size);

    let mut large = std::mem::take(&mut *world.asker.1.lock().unwrap());
    assert_eq!(large.len(), 2);
    large.sort_by_key(|(_, large)| large.encoding() == Encoding::Zstd);
    for ((key, large), served) in large.into_iter().zip([&[0, 1][..], &[2]]) {
        let encoding = large.encoding();
        large.compress();
        world.streams.compressed(key, encoding);
        world.work();
        for nth in served {
            let came = size(&sockets[*nth]) - silent[*nth];
            assert!((50..20_000).contains(&came), "{came} bytes came");
        }
    }
    assert!(world.asker.1.lock().unwrap().is_empty());
    assert_eq!(sockets[0].0.borrow().written, sockets[1].0.borrow().written);
}
