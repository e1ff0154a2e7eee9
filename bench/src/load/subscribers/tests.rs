use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::server::Kind;

/// A subscriber of these series that was greeted, and the server's end of its stream.
fn stream_of(series: Range<u32>) -> (Subscribers, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let greeting = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nid: 0-a\ndata: {}\n\n").unwrap();
        stream
    });
    let kind: Kind = format!("http://{address}").parse().unwrap();
    let server = kind.start(None).unwrap();
    let plan = Plan { series, ..Plan::of(0..1) };
    let (subscribers, _) = Subscribers::opened(&server, "run", &[plan], 1).unwrap();
    (subscribers, greeting.join().unwrap())
}

/// What is made of events with these series and numbers, of which `published` were published.
fn verdict(events: &[(u32, u32)], published: &[u32]) -> Result<u64, String> {
    let mut text = String::new();
    for (series, number) in events {
        text += &format!("id: {number}-a\ndata: |{series}.{number}.5|\n\n");
    }
    let (subscribers, mut stream) = stream_of(0..published.len() as u32);
    stream.write_all(text.as_bytes()).unwrap();
    subscribers.until_delivered(events.len() as u64, Duration::from_secs(20)).unwrap();
    subscribers.close_complete(published).map(|account| account.delivered)
}

#[test]
fn what_is_lost_duplicated_or_out_of_order_does_not_count_as_measured() {
    let of_one = |numbers: &[u32]| numbers.iter().map(|&number| (0, number)).collect::<Vec<_>>();
    assert_eq!(verdict(&of_one(&[1, 2, 3]), &[3]), Ok(3));
    for wrong in [&[1, 3][..], &[1, 2], &[1, 2, 2, 3], &[1, 2, 3, 1], &[2, 1, 3], &[]] {
        assert!(verdict(&of_one(wrong), &[3]).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_series_of_one_stream_are_counted_apart() {
    assert_eq!(verdict(&[(1, 1), (0, 1), (1, 2), (0, 2)], &[2, 2]), Ok(4));
    assert!(verdict(&[(0, 1), (0, 2), (1, 2)], &[2, 2]).is_err());
    assert!(verdict(&[(0, 1), (0, 2), (1, 1)], &[2, 2]).is_err());
}

#[test]
fn an_event_of_another_topic_fails_the_run() {
    let (subscribers, mut stream) = stream_of(0..1);
    stream.write_all(b"data: |7.1.5|\n\n").unwrap();
    clock::until("it to fail", Duration::from_secs(20), || subscribers.failed()).unwrap();
    assert!(subscribers.close().is_err_and(|why| why.contains("for others")));
}

#[test]
fn what_comes_is_read_at_once_and_not_together_with_what_comes_later() {
    const EVENTS: u64 = 51;
    let (subscribers, mut stream) = stream_of(0..1);
    let mut took = Vec::new();
    for number in 1..=EVENTS {
        let began = std::time::Instant::now();
        stream.write_all(format!("data: |0.{number}.5|\n\n").as_bytes()).unwrap();
        while subscribers.delivered() < number {
            assert!(!subscribers.failed());
            std::thread::yield_now();
        }
        took.push(began.elapsed());
    }
    assert_eq!(subscribers.reads(), EVENTS + 1, "one for each, and one for the greeting");
    // One that reads at intervals would need one for each. The quickest, since other programs run.
    let quickest = took.into_iter().min().unwrap();
    assert!(quickest < Duration::from_millis(10), "read after {quickest:?}");
    subscribers.close_complete(&[EVENTS as u32]).unwrap();
}
