//! What is found, where, and what becomes of it, over all parts together.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use fanfare_protocol::{Payload, PayloadRef};
use proptest::prelude::*;
use serde_json::Value;

use super::text::Cursor;
use super::*;

fn moderation(words: &str) -> Moderation {
    Moderation::default().with_words(words.as_bytes()).expect("a good list")
}

fn payload_text(payload: &Payload) -> &str {
    let (Payload::Json(bytes) | Payload::Text(bytes) | Payload::Binary(bytes)) = payload;
    str::from_utf8(bytes).expect("it is text")
}

fn mask(moderation: &Moderation, payload: PayloadRef<'_>) -> String {
    match moderation.judge(payload, Filter::Mask) {
        Ruling::Mask(_, masked) => payload_text(&masked).to_owned(),
        Ruling::Pass => match payload {
            PayloadRef::Json(text) | PayloadRef::Text(text) => text.to_owned(),
            PayloadRef::Binary(_) => panic!("no text"),
        },
        other => panic!("{other:?}"),
    }
}

fn check(list: &str, cases: &[(&str, &str)]) {
    let moderation = moderation(list);
    for &(text, masked) in cases {
        assert_eq!(mask(&moderation, PayloadRef::Text(text)), masked, "{text:?} with the list {list:?}");
    }
}

#[test]
fn words_are_found_however_they_are_written() {
    check(
        "bad\nfuck off\nstraße\n",
        &[
            ("a bad day", "a *** day"),
            ("BAD", "***"),
            ("ｂａｄ ＢＡＤ", "*** ***"),
            ("bád", "***"),
            ("b\u{301}ad", "****"),
            ("b.a.d", "*****"),
            ("b-a_d!", "*****!"),
            ("b a d", "*****"),
            ("b  a  d", "*******"),
            ("b\u{200b}a\u{200d}d", "*****"),
            ("b\u{200b}a\u{ad}d.", "*****."),
            ("b★a🙂d", "*****"),
            ("so bad, bad!", "so ***, ***!"),
            ("(bad)", "(***)"),
            ("bad's", "***'s"),
            ("bad_bad", "***_***"),
            ("b\na\nd", "*****"),
            ("b.........a.d", "*************"),
            ("b.-.-.-.-.-.-a d", "****************"),
            ("b          a\n\n\n\n\n\n\n\n\n\nd", "***********************"),
            ("𝐛𝐚𝐝", "***"),
            ("ⓑⓐⓓ", "***"),
            ("⒝⒜⒟", "***"),
            ("fuck off", "********"),
            ("fuckoff", "*******"),
            ("F U C K O F F", "*************"),
            ("fuck,  off", "**********"),
            ("STRASSE Straße", "******* ******"),
        ],
    );
}

#[test]
fn words_within_words_are_left_alone() {
    check(
        "bad\nass\nhell\nsb\n",
        &[
            ("badge, forbad, badly, bad1", "badge, forbad, badly, bad1"),
            ("class glass assume", "class glass assume"),
            ("as soon, as she; b ad, ba d", "as soon, as she; b ad, ba d"),
            ("he'll he’ll", "he'll he’ll"),
            ("bob a d", "bob a d"),
            ("b a day", "b a day"),
            ("bad\u{200b}ge", "bad\u{200b}ge"),
            ("this bold", "this bold"),
            ("s b", "***"),
        ],
    );
    check(
        "*ass*\nbad*\n*ish\n",
        &[("class assume ass", "cl*** ***ume ***"), ("badly forbad", "***ly forbad"), ("fish ishtar", "f*** ishtar")],
    );
}

#[test]
fn chinese_and_its_neighbours_work() {
    check(
        "坏蛋\n傻b\nsb\n法轮大\n操\n",
        &[
            ("你这个坏蛋啊", "你这个**啊"),
            ("坏 蛋", "***"),
            ("坏.蛋 坏*蛋 坏\u{200b}蛋", "*** *** ***"),
            ("坏　蛋", "***"),
            ("坏.........蛋", "***********"),
            ("坏        蛋", "**********"),
            // Two columns.
            ("坏         蛋", "坏         蛋"),
            ("坏\n\n\n\n\n\n\n\n\n蛋", "坏\n\n\n\n\n\n\n\n\n蛋"),
            ("他很坏。蛋糕很好", "他很坏。蛋糕很好"),
            ("坏，蛋", "坏，蛋"),
            ("法，轮，大", "*****"),
            ("法轮，大家", "法轮，大家"),
            ("你是sb吗", "你是**吗"),
            ("你是ＳＢ吗", "你是**吗"),
            ("傻B 傻 b", "** ***"),
            ("傻bc", "傻bc"),
            ("usb线", "usb线"),
            ("usb线sb线 xu线sb", "usb线**线 xu线**"),
            ("操操", "**"),
            ("蛋坏", "蛋坏"),
        ],
    );
    check(
        "バカ\nハ\n바보\n시\nㅅㅂ\nㅏ\nไทย\n",
        &[
            ("バカだ ﾊﾞｶ", "**だ ***"),
            ("ハカ", "*カ"),
            ("ば バ", "ば バ"),
            ("바보야", "**야"),
            ("식", "식"),
            ("\u{1109}\u{1175}\u{11a8}", "\u{1109}\u{1175}\u{11a8}"),
            ("시작", "*작"),
            ("ㅅㅂ 사바", "** 사바"),
            ("가 ㅏ", "가 *"),
            ("คนไทยดี", "คน***ดี"),
        ],
    );
}

#[test]
fn signs_of_the_list_count_as_letters() {
    check(
        "a$$\n🖕\nc++\n",
        &[("a$$ A＄＄ a$$ume", "*** *** a$$ume"), ("🖕you 🖕🏽", "*you *🏽"), ("C++!", "***!"), ("a b c", "a b c")],
    );
    check("bad\nf***\n", &[("bad f*** b.a.d", "*** **** *****")]);
}

#[test]
fn overlapping_words_are_masked_together() {
    check("*abc*\n*bcd*\n*cde*\n*b*\n", &[("xabcdex", "x*****x"), ("xbx", "x*x"), ("abcabc", "******")]);
    check("*he*\n*she*\n*hers*\n*his*\n", &[("ushers", "u*****"), ("this", "t***")]);
    check("坏蛋\n大坏蛋\n蛋糕\n", &[("大坏蛋糕", "****")]);
}

#[test]
fn only_strings_of_json_are_looked_at_and_masked() {
    let moderation = moderation("bad\n坏蛋\ntrue\n🖕\n12\n");
    for (json, masked) in [
        (r#""bad""#, r#""***""#),
        (
            r#"{"bad":"bad","n":12,"t":true,"l":["x bad",null,{"m":"坏蛋"}]}"#,
            r#"{"bad":"***","n":12,"t":true,"l":["x ***",null,{"m":"**"}]}"#,
        ),
        (r#"{ "a" : "b\u0061d" , "b":"\u574f\u86cb!"}"#, r#"{ "a" : "***" , "b":"**!"}"#),
        (r#""b\nad b\u200bad b\na\nd""#, r#""b\nad **** *****""#),
        (r#""\"bad\" \\bad\/bad""#, r#""\"***\" \\***\/***""#),
        (r#""\ud83d\udd95x 🖕""#, r#""*x *""#),
        (r#""\ud83d bad \udd95""#, r#""\ud83d *** \udd95""#),
        (r#"["ba","d"]"#, r#"["ba","d"]"#),
        (r#"{"k":"b","l":"ad"}"#, r#"{"k":"b","l":"ad"}"#),
        ("12", "12"),
        (r#""x\tbad""#, r#""x\t***""#),
        (r#""nbad \nbad""#, r#""nbad \n***""#),
    ] {
        assert_eq!(mask(&moderation, PayloadRef::Json(json)), masked, "{json}");
        // The gateway takes lone surrogates, as RawValue does; Value does not.
        serde_json::from_str::<&serde_json::value::RawValue>(masked).expect("the table is right");
    }
    let chinese = self::moderation("坏蛋\n");
    assert_eq!(mask(&chinese, PayloadRef::Json(r#""bad \u574f\u86cb""#)), r#""bad **""#, "ASCII may mean more");
    assert_eq!(mask(&moderation, PayloadRef::Text(r"b\u0061d \nbad")), r"b\u0061d \nbad", "plain text has no escapes");
}

#[test]
fn lists_of_any_size_find_the_same() {
    // The first fits a DFA, the second does not.
    let few: String = (0..50).map(|n| format!("word{n}x\n坏蛋{n}\n")).collect();
    let many: String = (0..5_000).map(|n| format!("word{n}x\n坏蛋{n}\n")).collect();
    for list in [few, many] {
        check(&list, &[("a word7x, 坏蛋3, w.o.r.d.4.9.x", "a ******, ***, *************"), ("word7", "word7")]);
    }
}

#[test]
fn a_filter_says_what_is_done() {
    let model = b"fanfare-model 1\n0.8 10 10\n9\t0\tfree\n0\t9\thello\n";
    let moderation = moderation("bad\n").with_model(model).expect("a good model");
    let rule = |text, filter| {
        let (ruling, finding) = match moderation.judge(PayloadRef::Text(text), filter) {
            Ruling::Pass => return "pass".to_owned(),
            Ruling::Observe(finding) => ("observe".to_owned(), finding),
            Ruling::Mask(finding, masked) => (payload_text(&masked).to_owned(), finding),
            Ruling::Reject(finding) => ("reject".to_owned(), finding),
            Ruling::Hold(finding) => ("hold".to_owned(), finding),
        };
        assert_eq!(finding.word.as_deref(), (finding.cause != Cause::Model).then_some("bad"));
        assert_eq!(finding.spam.is_some(), finding.cause != Cause::Words);
        format!("{ruling}: {}", finding.cause.label())
    };
    for (text, [observe, mask, reject, hold]) in [
        ("hello", ["pass"; 4]),
        ("bad", ["observe: words", "***: words", "reject: words", "hold: words"]),
        ("free", ["observe: model", "reject: model", "reject: model", "hold: model"]),
        ("free bad", ["observe: both", "reject: both", "reject: words", "hold: words"]),
    ] {
        assert_eq!(rule(text, Filter::Observe), observe);
        assert_eq!(rule(text, Filter::Mask), mask);
        assert_eq!(rule(text, Filter::Reject), reject);
        assert_eq!(rule(text, Filter::Hold), hold);
        assert_eq!(rule(text, Filter::Off), "pass");
    }
    let json = r#"{"a":"fr\u0065e","free":1}"#;
    assert!(matches!(moderation.judge(PayloadRef::Json(json), Filter::Reject), Ruling::Reject(_)));
    assert_eq!(moderation.judge(PayloadRef::Json(r#"{"free":"hello"}"#), Filter::Reject), Ruling::Pass);
    assert_eq!(moderation.judge(PayloadRef::Binary(b"bad"), Filter::Reject), Ruling::Pass);
    assert_eq!(Moderation::default().judge(PayloadRef::Text("bad"), Filter::Reject), Ruling::Pass);
    assert_eq!("hold".parse(), Ok(Filter::Hold));
    assert!("holds".parse::<Filter>().is_err());
}

#[test]
fn versions_are_those_of_the_files() {
    let moderation = moderation("bad\n");
    assert_eq!(moderation.words_version(), "1d7a363ce124");
    assert_eq!(moderation.model_version(), "");
    assert_eq!(moderation.words().map(WordList::len), Some(1));
}

/// Texts made to be slow. Linear time is a few seconds for the worst even unoptimised; quadratic time would be an hour.
#[test]
#[expect(clippy::disallowed_methods, reason = "the filter is not told the time; this test is about the time it takes")]
fn hostile_texts_take_linear_time() {
    let list = format!("bad\n{}\n*{}*\nab\n坏蛋\n", "a".repeat(64), "a".repeat(32));
    let moderation = moderation(&list).with_model(b"fanfare-model 1\n0.8 10 10\n9\t0\tfree\n").expect("a good model");
    let size = 1 << 17;
    for text in [
        "a".repeat(size),
        "a ".repeat(size / 2),
        "a\u{200b}".repeat(size / 4),
        format!("ba{}", "\u{200b}".repeat(size / 3)),
        format!("ab{}", "\u{200b}".repeat(size / 3)),
        "ab\u{301}".repeat(size / 4),
        "b.a.".repeat(size / 4),
        "坏".repeat(size / 3),
        "坏 ".repeat(size / 4),
        "\u{fdfa}".repeat(size / 3),
        " ".repeat(size),
        "\\".repeat(size),
        "\"".repeat(size),
    ] {
        let begun = Instant::now();
        let _ = moderation.judge(PayloadRef::Text(&text), Filter::Mask);
        let json = serde_json::to_string(&text).expect("a string");
        let _ = moderation.judge(PayloadRef::Json(&json), Filter::Mask);
        let _ = moderation.judge(PayloadRef::Json(&text), Filter::Observe);
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{:?}: {:?}",
            &text[..text.floor_char_boundary(16)],
            begun.elapsed()
        );
    }
}

/// The filter by definition, for lists and texts of a few letters: every pair of places is tried.
fn naive(words: &[&str], text: &str) -> Vec<bool> {
    let letters: Vec<char> = text.chars().collect();
    let mut masked = vec![false; letters.len()];
    for word in words {
        let word: Vec<char> = word.chars().collect();
        for start in 0..letters.len() {
            let (mut at, mut matched) = (start, 0);
            while at < letters.len() && matched < word.len() {
                if letters[at] == word[matched] {
                    matched += 1;
                } else if letters[at] != '.' || matched == 0 {
                    break;
                }
                at += 1;
            }
            if matched == word.len() {
                masked[start..at].fill(true);
            }
        }
    }
    masked
}

fn any_string() -> impl Strategy<Value = String> {
    prop_oneof![
        "[abx. ]{0,12}",
        "[坏蛋好。 a]{0,8}",
        any::<String>(),
        Just("b\u{200b}ad".to_owned()),
        Just("🖕bad".to_owned())
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), any::<i32>().prop_map(Value::from), any_string().prop_map(Value::from)];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any_string(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// JSON text with some of its letters escaped that need not be.
fn escaped(value: &Value, pattern: u64) -> String {
    let text = serde_json::to_string(value).expect("a value");
    let mut out = String::new();
    let (mut is_string, mut is_escape) = (false, false);
    for (index, char) in text.chars().enumerate() {
        if is_string && !is_escape && char != '"' && char != '\\' && pattern >> (index % 64) & 1 == 1 {
            for unit in char.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
            continue;
        }
        if char == '"' && !is_escape {
            is_string = !is_string;
        }
        is_escape = is_string && char == '\\' && !is_escape;
        out.push(char);
    }
    out
}

/// `before` with stars in some strings, and nothing else changed.
fn assert_only_stars(before: &Value, after: &Value, moderation: &Moderation) {
    match (before, after) {
        (Value::String(before), Value::String(after)) => {
            assert_eq!(after, &mask(moderation, PayloadRef::Text(before)), "strings are masked as texts are");
            assert_eq!(before.chars().count(), after.chars().count());
            assert!(before.chars().zip(after.chars()).all(|(before, after)| before == after || after == '*'));
        }
        (Value::Array(before), Value::Array(after)) => {
            assert_eq!(before.len(), after.len());
            before.iter().zip(after).for_each(|(before, after)| assert_only_stars(before, after, moderation));
        }
        (Value::Object(before), Value::Object(after)) => {
            assert!(before.keys().eq(after.keys()));
            before
                .values()
                .zip(after.values())
                .for_each(|(before, after)| assert_only_stars(before, after, moderation));
        }
        _ => assert_eq!(before, after),
    }
}

proptest! {
    #[test]
    fn masked_json_is_json_with_stars_in_strings_alone(value in any_json(), pattern in any::<u64>(), pretty in any::<bool>()) {
        let moderation = moderation("*ab*\nbad\n坏蛋\n🖕\n*a好*\n");
        let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { escaped(&value, pattern) };
        prop_assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), &value, "the escapes mean the same");
        let masked = mask(&moderation, PayloadRef::Json(&text));
        let after: Value = serde_json::from_str(&masked).expect("masked JSON is JSON");
        assert_only_stars(&value, &after, &moderation);
    }

    #[test]
    fn what_is_found_is_what_the_definition_says(text in "[abc.]{0,24}") {
        let words = ["ab", "abc", "bca", "cc", "aaa"];
        let moderation = moderation("*ab*\n*abc*\n*bca*\n*cc*\n*aaa*\n");
        let expected: String =
            text.chars().zip(naive(&words, &text)).map(|(char, masked)| if masked { '*' } else { char }).collect();
        prop_assert_eq!(mask(&moderation, PayloadRef::Text(&text)), expected);
    }

    #[test]
    fn any_list_and_any_text_are_taken(list in any::<String>(), text in any::<String>()) {
        let Ok(list) = WordList::parse(list.as_bytes()) else { return Ok(()) };
        let mut end = 0;
        let _ = list.scan(Cursor::plain(&text), &mut |hit| {
            assert!(hit.place.start < hit.place.end && hit.place.end > end, "in the order of their ends");
            assert!(text.is_char_boundary(hit.place.start) && text.is_char_boundary(hit.place.end));
            end = hit.place.end;
            ControlFlow::Continue(())
        });
    }
}
