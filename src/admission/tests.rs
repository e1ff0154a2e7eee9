use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn client(n: u8) -> Client {
    Client { address: AddressBlock::of(IpAddr::from([10, 0, 0, n])), is_exempt: false }
}

fn exempt(n: u8) -> Client {
    Client { is_exempt: true, ..client(n) }
}

fn subject(admission: &Admission, name: &str) -> Subject {
    admission.subject(None, name)
}

#[test]
fn limits_hold_and_places_come_back() {
    let limits = StreamLimits { streams_per_address_max: 2, ..StreamLimits::of_streams(3) };
    let admission = Admission::new(limits);
    let first = admission.admit(client(1), 1).unwrap();
    let _second = admission.admit(exempt(1), 1).unwrap();
    assert_eq!(admission.admit(client(1), 1).err(), Some(NotAdmitted::AddressFull));
    let third = admission.admit(client(2), 1).unwrap();
    assert_eq!(admission.admit(client(2), 1).err(), Some(NotAdmitted::Full));
    assert_eq!(admission.streams(), 3);
    drop(first);
    drop(third);
    assert_eq!(admission.streams(), 1);
    assert!(admission.admit(client(1), 1).is_ok());
    assert_eq!(admission.streams(), 1);
}

#[test]
fn the_streams_of_an_address_follow_no_more_topics_than_they_may() {
    let limits = StreamLimits { topics_per_address_max: 150, ..StreamLimits::of_streams(100) };
    let admission = Admission::new(limits);
    let first = admission.admit(client(1), 100).unwrap();
    assert_eq!(admission.admit(client(1), 51).err(), Some(NotAdmitted::AddressTopicsFull));
    let second = admission.admit(client(1), 50).unwrap();
    assert!(admission.admit(client(2), 100).is_ok());
    assert!(admission.admit(exempt(1), 100).is_ok());
    drop(first);
    assert!(admission.admit(client(1), 100).is_ok());
    drop(second);
    assert!(admission.clients().addresses.is_empty());
}

#[test]
fn a_subject_has_as_many_streams_as_it_may_from_wherever_they_come() {
    let limits = StreamLimits { streams_per_subject_max: 2, ..StreamLimits::of_streams(100) };
    let admission = Admission::new(limits);
    let alice = subject(&admission, "alice");
    let mut streams = Vec::new();
    for n in 1..=2 {
        let mut admitted = admission.admit(client(n), 1).unwrap();
        admitted.count_for(alice).unwrap();
        // It is counted once.
        admitted.count_for(alice).unwrap();
        streams.push(admitted);
    }
    let mut third = admission.admit(client(3), 1).unwrap();
    assert_eq!(third.count_for(alice), Err(NotAdmitted::SubjectFull));
    third.count_for(subject(&admission, "bob")).unwrap();
    assert_ne!(admission.subject(Some("other"), "alice"), alice);
    streams.pop();
    assert_eq!(admission.admit(client(3), 1).unwrap().count_for(alice), Ok(()));
    drop((streams, third));
    assert!(admission.clients().subjects.is_empty());
}

#[test]
fn topics_are_reserved_until_they_are_followed() {
    let admission =
        Admission::new(StreamLimits { topics_max: 10, ..StreamLimits::of_streams(100) });
    let first = admission.reserve_topics(4, || 4).unwrap();
    assert_eq!(admission.reserve_topics(3, || 4).err(), Some(NotAdmitted::TopicsFull));
    let second = admission.reserve_topics(2, || 4).unwrap();
    drop((first, second));
    assert!(admission.reserve_topics(6, || 4).is_ok());
    // Those that somebody follows already cost nothing.
    assert!(admission.reserve_topics(0, || 20).is_ok());
}

#[cfg(target_pointer_width = "64")]
#[test]
fn the_right_to_a_stream_is_small() {
    assert_eq!(size_of::<Admitted>(), 24);
}

proptest! {
    #[test]
    fn whatever_comes_and_goes_nothing_is_left_behind_and_no_limit_is_passed(
        steps in prop::collection::vec((0..4_u8, 0..3_u8, 1..120_usize, any::<bool>()), 1..200),
    ) {
        let limits = StreamLimits {
            streams_per_address_max: 5,
            streams_per_subject_max: 7,
            topics_per_address_max: 250,
            ..StreamLimits::of_streams(20)
        };
        let admission = Admission::new(limits);
        let mut open: Vec<(u8, u8, usize, Admitted)> = Vec::new();
        for (address, name, topics, goes) in steps {
            if goes && !open.is_empty() {
                open.swap_remove(topics % open.len());
                continue;
            }
            let of_address = open.iter().filter(|(other, ..)| *other == address);
            let of_address: Vec<usize> = of_address.map(|(_, _, topics, _)| *topics).collect();
            let fits = open.len() < 20
                && of_address.len() < 5
                && of_address.iter().sum::<usize>() + topics <= 250;
            let admitted = admission.admit(client(address), topics);
            prop_assert_eq!(admitted.is_ok(), fits);
            if let Ok(mut admitted) = admitted {
                let of_name = open.iter().filter(|(_, other, ..)| *other == name).count();
                let counted = admitted.count_for(subject(&admission, &name.to_string()));
                prop_assert_eq!(counted.is_ok(), of_name < 7);
                if counted.is_ok() {
                    open.push((address, name, topics, admitted));
                }
            }
            prop_assert_eq!(admission.streams(), open.len());
        }
        drop(open);
        prop_assert_eq!(admission.streams(), 0);
        let clients = admission.clients();
        prop_assert!(clients.addresses.is_empty() && clients.subjects.is_empty());
    }
}
