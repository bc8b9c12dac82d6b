//! Signals, and how it ends.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::{Process, SERVE, close_code, get_from, upgrade, wait_for_connections, wait_until};

#[test]
fn serve_says_what_it_listens_on_and_leaves_with_0_when_told() {
    for signal in [Signal::TERM, Signal::INT] {
        let quick = [("FANFARE_DRAIN__GRACE_MS", "0"), ("FANFARE_DRAIN__WINDOW_MS", "300")];
        let mut serve = Process::fanfare(SERVE, &quick);
        let (clients, admin) = serve.addresses();
        wait_until("it to be ready", || get_from(admin, "/readyz").0 == 200);
        let mut client = upgrade(clients, "/room/a?format=text");
        wait_for_connections(admin, 1);
        serve.signal(signal);
        assert_eq!(close_code(&mut client), 1012);
        // It answers, as a browser does, and is let go before its time is up.
        client.get_mut().write_all(&crate::support::close_frame(1012, "")).expect("an open connection");
        assert_eq!(serve.ended().code(), Some(0));
        let said = serve.err.all().join("\n");
        for word in ["leaving service", "connections=1", "listener closed", "left service", "cut=0"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}

/// Its first line is a promise: from then on it can be told to leave, and will do so in good order.
#[test]
fn a_signal_right_after_the_start_is_not_too_early() {
    for _ in 0..5 {
        let mut serve = Process::fanfare(SERVE, &[("FANFARE_DRAIN__GRACE_MS", "0")]);
        serve.err.wait_for(&["clients on "]);
        serve.signal(Signal::TERM);
        assert_eq!(serve.ended().code(), Some(0), "{:#?}", serve.err.so_far());
    }
}

#[test]
fn further_signals_hurry_out_of_the_grace_and_out_of_the_window() {
    for (grace, window, said, half) in [
        ("3600000", "3600000", "leaving service", "all closed in 3"),
        ("0", "3600000", "listener closed", "all closed in 1"),
    ] {
        let slow = [
            ("FANFARE_DRAIN__GRACE_MS", grace),
            ("FANFARE_DRAIN__WINDOW_MS", window),
            ("FANFARE_HEARTBEAT__CLOSE_MS", "300"),
        ];
        let mut serve = Process::fanfare(SERVE, &slow);
        let (clients, admin) = serve.addresses();
        // Two, so that the pace of an hour has closed one of them at the most.
        let mut held = [upgrade(clients, "/room/a?format=text"), upgrade(clients, "/room/a?format=text")];
        wait_for_connections(admin, 2);
        serve.signal(Signal::TERM);
        serve.err.wait_for(&[said]);
        assert_eq!(get_from(admin, "/readyz").0, 503);
        assert_eq!(get_from(admin, "/livez").0, 200);
        assert!(serve.is_running());
        serve.signal(Signal::TERM);
        // Half of what was left; half of a half, and so on, leaves nothing at last.
        serve.err.wait_for(&["told to hurry", half]);
        while serve.is_running() {
            serve.signal(Signal::TERM);
            thread::sleep(Duration::from_millis(2));
        }
        for client in &mut held {
            assert_eq!(close_code(client), 1012);
        }
        drop(held);
        assert_eq!(serve.ended().code(), Some(0));
        assert!(serve.err.all().join("\n").contains("left service"));
    }
}
