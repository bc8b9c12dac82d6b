//! Looking at what messages say: word lists of two sizes, a model, and messages clean and not.

use std::fmt::Write as _;
use std::hint::black_box;

use fanfare_guard::words::{Label, Training};
use fanfare_guard::{Filter, Moderation, Ruling};
use fanfare_protocol::PayloadRef;

use crate::{Amount, Run, Stage, repeat};

/// What people write: 128 bytes or so of JSON, without a word of the lists.
const LATIN: &str = r#"{"user":"ann","text":"The quick brown fox jumps over the lazy dog, and then it walks home for tea and buttered toast."}"#;
const CHINESE: &str = r#"{"user":"小明","text":"今天天气很好，我们一起去公园散步吧，晚上再去吃火锅，你觉得怎么样？"}"#;
const ESCAPED: &str =
    r#"{"user":"\u5c0f\u660e","text":"\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u4e00\u8d77\u53bb\u5403\u996d\n"}"#;
const WIDE: &str = r#"{"user":"ann","text":"Ｔｈｅ　ｑｕｉｃｋ　ｂｒｏｗｎ　ｆｏｘ　ｊｕｍｐｓ"}"#;
/// Three words of every list in it, each written in another way.
const FOUL: &str = r#"{"user":"ann","text":"You are so w.o.r.d.7.x, my ＷＯＲＤ８Ｘ, and all of this is such a 坏\u200b词九 that I cannot say"}"#;

/// See the crate's page.
#[must_use]
pub fn stages() -> Vec<Stage> {
    let stage = |name: &str, text: &'static str, of: fn() -> Moderation| {
        let bytes = Amount::Bytes(text.len() as u64);
        Stage::new(format!("words/{name}"), bytes, 2_000, move || clean(of(), text))
    };
    vec![
        stage("short_list/latin", LATIN, || list(100)),
        stage("short_list/chinese", CHINESE, || list(100)),
        stage("long_list/latin", LATIN, || list(20_000)),
        stage("long_list/chinese", CHINESE, || list(20_000)),
        stage("long_list/escaped", ESCAPED, || list(20_000)),
        stage("long_list/full_width", WIDE, || list(20_000)),
        stage("chinese_list/latin", LATIN, chinese_list),
        stage("model/latin", LATIN, model),
        stage("model/chinese", CHINESE, model),
        Stage::new("words/mask/three", Amount::Bytes(FOUL.len() as u64), 2_000, mask),
    ]
}

fn list(words: usize) -> Moderation {
    let digits = ['零', '一', '二', '三', '四', '五', '六', '七', '八', '九'];
    let mut list = String::new();
    for n in 0..words {
        let chinese: String = n.to_string().bytes().map(|digit| digits[usize::from(digit - b'0')]).collect();
        let _ = writeln!(list, "word{n}x\n坏词{chinese}");
    }
    Moderation::default().with_words(list.as_bytes()).expect("a good list")
}

fn chinese_list() -> Moderation {
    Moderation::default().with_words("坏词\n蠢话\n脏字\n".as_bytes()).expect("a good list")
}

fn model() -> Moderation {
    let mut training = Training::default();
    for n in 0..5_000 {
        training.learn(&format!("win free money today {n} 加微信{n}领取免费红包"), Label::Spam);
        training.learn(&format!("the dog walks home for tea {n} 今天一起去公园{n}吃火锅"), Label::Ham);
    }
    Moderation::default().with_model(training.to_file(0.9).as_bytes()).expect("a good model")
}

fn clean(moderation: Moderation, text: &'static str) -> Run {
    repeat(move || {
        let ruling = moderation.judge(PayloadRef::Json(black_box(text)), Filter::Mask);
        assert_eq!(black_box(ruling), Ruling::Pass);
    })
}

fn mask() -> Run {
    let moderation = list(20_000);
    repeat(move || {
        let Ruling::Mask(_, masked) = moderation.judge(PayloadRef::Json(black_box(FOUL)), Filter::Mask) else {
            panic!("something is found")
        };
        assert_eq!(black_box(masked).len(), FOUL.len() - "ＷＯＲＤ８Ｘ".len() + 6 - r"坏\u200b词九".len() + 4);
    })
}
