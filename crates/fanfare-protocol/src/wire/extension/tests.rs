use proptest::prelude::*;

use super::*;

const TERMS: DeflateTerms = DeflateTerms { client_context: false };

fn negotiated(lines: &[&str], terms: Option<DeflateTerms>) -> Result<Option<Accepted>, MalformedExtensions> {
    negotiate(lines.iter().map(|line| line.as_bytes()), terms)
}

/// The answer to what these lines offer; `None`: declined.
fn check(lines: &[&str], answer: Option<&str>) {
    let accepted = negotiated(lines, Some(TERMS)).unwrap_or_else(|error| panic!("{lines:?}: {error}"));
    assert_eq!(accepted.map(|accepted| accepted.answer).as_deref(), answer, "{lines:?}");
    assert_eq!(negotiated(lines, None), Ok(None), "{lines:?}: compression is off");
}

fn check_malformed(lines: &[&str]) {
    assert_eq!(negotiated(lines, Some(TERMS)), Err(MalformedExtensions), "{lines:?}");
    assert_eq!(negotiated(lines, None), Err(MalformedExtensions), "{lines:?}: compression is off");
}

const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

#[test]
fn offers_that_are_accepted() {
    let windowed = |bits: u8| format!("{PLAIN}; server_max_window_bits={bits}");
    // As Firefox offers it; as Chromium, Node's ws and Python's websockets do; and as a client short of memory may.
    check(&["permessage-deflate"], Some(PLAIN));
    check(&["permessage-deflate; client_max_window_bits"], Some(PLAIN));
    check(&["permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"], Some(&windowed(12)));

    check(&["permessage-deflate; server_no_context_takeover"], Some(PLAIN));
    check(&["permessage-deflate; client_no_context_takeover;server_no_context_takeover"], Some(PLAIN));
    check(&["permessage-deflate; client_max_window_bits=8"], Some(PLAIN));
    for (demanded, bits) in [(9, 9), (10, 9), (11, 9), (12, 12), (13, 12), (14, 12), (15, 15)] {
        check(&[&format!("permessage-deflate; server_max_window_bits={demanded}")], Some(&windowed(bits)));
    }
    check(&[r#"permessage-deflate; server_max_window_bits="10""#], Some(&windowed(9)));
    check(&[r#"permessage-deflate; server_max_window_bits="1\0""#], Some(&windowed(9)));
    check(
        &["  permessage-deflate\t;  client_max_window_bits =\t10 ; server_max_window_bits= 15 "],
        Some(&windowed(15)),
    );
}

#[test]
fn offers_that_are_declined() {
    for parameters in [
        // Unknown, in another case, twice.
        "unknown",
        "unknown=1",
        "Server_No_Context_Takeover",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover; client_no_context_takeover",
        "client_max_window_bits; client_max_window_bits=10",
        "server_max_window_bits=10; server_max_window_bits=10",
        // Values where there are none, and none where there must be one.
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        r#"client_no_context_takeover="true""#,
        "server_max_window_bits",
        // Values that are no number from 8 to 15, and the one that no compressor does with.
        "server_max_window_bits=7",
        "server_max_window_bits=8",
        "server_max_window_bits=16",
        "server_max_window_bits=09",
        "server_max_window_bits=010",
        "server_max_window_bits=+9",
        "server_max_window_bits=1.0",
        "server_max_window_bits=100",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=x",
    ] {
        check(&[&format!("permessage-deflate; {parameters}")], None);
        // The next offer may be better.
        check(&[&format!("permessage-deflate; {parameters}, permessage-deflate")], Some(PLAIN));
    }
    check(&["permessage-bzip2; server_max_window_bits=9, x-webkit-deflate-frame"], None);
    check(&["Permessage-Deflate"], None);
    check(&[], None);
}

#[test]
fn the_first_acceptable_offer_counts_over_all_lines() {
    let windowed = |bits: u8| Some(format!("{PLAIN}; server_max_window_bits={bits}"));
    let both = "permessage-deflate; server_max_window_bits=9, permessage-deflate";
    check(&[both], windowed(9).as_deref());
    check(&["permessage-deflate", "permessage-deflate; server_max_window_bits=9"], Some(PLAIN));
    check(&["foo; bar=\"baz\"", "permessage-deflate; server_max_window_bits=8", both], windowed(9).as_deref());
    check(&["", ",, permessage-deflate ,", "\t"], Some(PLAIN));
}

#[test]
fn headers_that_do_not_follow_the_grammar() {
    for line in [
        "",
        " , ,",
        ";",
        "permessage-deflate;",
        "permessage-deflate; ;client_max_window_bits",
        "permessage-deflate; client_max_window_bits=",
        "permessage-deflate; =10",
        "permessage-deflate; client_max_window_bits=\"10",
        "permessage-deflate; client_max_window_bits=\"\"",
        "permessage-deflate; client_max_window_bits=\"1 0\"",
        "permessage-deflate; client_max_window_bits=\"10\\",
        "permessage-deflate; client_max_window_bits=1 0",
        "permessage-deflate; client_max_window_bits=\"10\"0",
        "permessage-deflate client_max_window_bits",
        "permessage-deflate; a/b",
        "permessage-deflate: x",
        "foo bar",
        "foo; bar=\"b,z\"",
        "foo=1",
        "perméssage",
        "\"permessage-deflate\"",
    ] {
        check_malformed(&[line]);
        // Whatever stands before and after.
        if !line.trim_matches([' ', ',']).is_empty() {
            check_malformed(&["permessage-deflate", line]);
            check_malformed(&[line, "permessage-deflate"]);
        }
    }
}

#[test]
fn the_context_is_taken_over_only_where_both_want_it() {
    let takes = |offer: &str, client_context| {
        let accepted = negotiated(&[offer], Some(DeflateTerms { client_context })).unwrap().unwrap();
        assert_eq!(accepted.answer.contains("client_no_context_takeover"), !accepted.agreement.client_context);
        assert!(accepted.answer.contains("server_no_context_takeover"), "frames are shared: {}", accepted.answer);
        accepted.agreement.client_context
    };
    assert!(takes("permessage-deflate", true));
    assert!(takes("permessage-deflate; server_no_context_takeover", true));
    assert!(!takes("permessage-deflate; client_no_context_takeover", true));
    assert!(!takes("permessage-deflate", false));
}

/// Bytes that come near to being offers.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("permessage-deflate".to_owned()),
        Just("server_no_context_takeover".to_owned()),
        Just("client_no_context_takeover".to_owned()),
        Just("server_max_window_bits".to_owned()),
        Just("client_max_window_bits".to_owned()),
        "[;,=\" \t\\\\]",
        "[0-9]{1,2}",
        "\\PC{0,3}",
    ];
    prop_oneof![
        3 => proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #[test]
    fn any_bytes_get_an_answer_that_is_within_the_offer(lines in proptest::collection::vec(line(), 0..4), client_context: bool) {
        let terms = Some(DeflateTerms { client_context });
        let accepted = negotiate(lines.iter().map(Vec::as_slice), terms);
        if let Ok(Some(Accepted { agreement, answer })) = &accepted {
            let offered = lines.iter().any(|line| line.windows(18).any(|part| part == b"permessage-deflate"));
            prop_assert!(offered);
            prop_assert!(answer.starts_with("permessage-deflate; server_no_context_takeover"));
            prop_assert!(client_context || !agreement.client_context);
            // The answer is itself an offer that leads to the same.
            let again = negotiate([answer.as_bytes()], terms).unwrap().unwrap();
            prop_assert_eq!(&again.agreement, agreement);
            prop_assert_eq!(&again.answer, answer);
        }
        prop_assert_eq!(negotiate(lines.iter().map(Vec::as_slice), None), accepted.map(|_| None));
    }
}
