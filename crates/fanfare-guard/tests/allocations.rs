//! What looking at a message allocates where nothing is found: nothing. Counted by an allocator of its own in the test binary.

use fanfare_guard::words::Training;
use fanfare_guard::{Filter, Moderation, Ruling};
use fanfare_protocol::PayloadRef;

fn moderation(words: usize) -> Moderation {
    let list: String = (0..words).map(|n| format!("bad{n}\n*ugly{n}\n坏蛋{n}\n")).collect();
    let mut training = Training::default();
    training.learn("win free money 免费红包", fanfare_guard::words::Label::Spam);
    training.learn("hello there 你好", fanfare_guard::words::Label::Ham);
    let model = training.to_file(0.9);
    let moderation = Moderation::default().with_words(list.as_bytes()).expect("a good list");
    moderation.with_model(model.as_bytes()).expect("a good model")
}

#[test]
fn a_message_without_fault_allocates_nothing() {
    let long = "ba d ugl 坏 蛋 ｂａ ".repeat(1_000);
    // The first list becomes a DFA, the second is too long for one.
    for moderation in [moderation(100), moderation(3_000)] {
        for text in [
            r#"{"user":"ann","text":"see you at nine, b.a.d9999x u-g-l-y"}"#,
            r#"{"text":"今天天气很好，坏 蛋 糕","n":[1,2,null]}"#,
            r#"{"text":"\u4e2d\u6587 \ud83d\ude00 caf\u00e9\n"}"#,
            "Grüße aus Köln, ｆｕｌｌ ｗｉｄｔｈ ﷺ ①②③",
            "z\u{300}\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}\u{307}\u{308}algo\u{200b}",
            &long,
        ] {
            for payload in [PayloadRef::Json(text), PayloadRef::Text(text)] {
                for filter in [Filter::Observe, Filter::Mask, Filter::Reject, Filter::Hold] {
                    let mut ruling = None;
                    let counted = allocation_counter::measure(|| ruling = Some(moderation.judge(payload, filter)));
                    assert_eq!(ruling, Some(Ruling::Pass), "{text}");
                    assert_eq!(counted.count_total, 0, "{text}");
                }
            }
        }
    }
}

#[test]
fn the_count_sees_what_a_hit_allocates() {
    let moderation = moderation(1);
    let counted = allocation_counter::measure(|| {
        assert!(matches!(moderation.judge(PayloadRef::Text("bad0"), Filter::Mask), Ruling::Mask(..)));
    });
    assert!(counted.count_total > 0);
}
