//! How deep a JSON text nests. Nothing here reads values by recursion, but those who are sent them may: common parsers give up, or
//! worse, beyond some depth, and one message must not take every subscriber of a room with it.

/// Most levels of arrays and objects within each other in a command, the command's own object included. Deeper ones are refused, and so
/// is what is published over HTTP and would make an event that deep.
pub const JSON_DEPTH_MAX: usize = 100;

/// True when `json`, a valid JSON text, has more than `max` arrays and objects within each other. Takes time in its length and no memory.
#[must_use]
pub fn nests_deeper(json: &str, max: usize) -> bool {
    // As good as every text is decided by this: it goes over many bytes at once, and over short ones not at all.
    let opens = |bytes: &[u8]| bytes.iter().filter(|&&byte| matches!(byte, b'{' | b'[')).count();
    json.len() > 2 * max && opens(json.as_bytes()) > max && depth(json.as_bytes()) > max
}

fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut is_escaped) = (false, false);
    for &byte in json {
        if in_string {
            in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn nested(levels: usize) -> String {
        let (open, close): (String, String) = ("[{\"a\":".repeat(levels / 2), "}]".repeat(levels / 2));
        if levels.is_multiple_of(2) { format!("{open}1{close}") } else { format!("[{open}1{close}]") }
    }

    #[test]
    fn only_what_nests_counts() {
        for levels in [0, 1, 2, 99, 100, 101, 20_000] {
            let json = nested(levels);
            assert_eq!(depth(json.as_bytes()), levels);
            for max in [1, 100, 101] {
                assert_eq!(nests_deeper(&json, max), levels > max, "{levels} {max}");
            }
        }
        let wide = format!("[{}[]]", "[],".repeat(1_000));
        assert!(!nests_deeper(&wide, 2) && nests_deeper(&wide, 1));
        // Brackets in strings are text, whatever stands before their quotes.
        let text = serde_json::to_string(&format!("\"\\\" {} \\", "[{".repeat(1_000))).expect("a string");
        assert_eq!(depth(text.as_bytes()), 0);
        assert!(!nests_deeper(&format!("[{text}, {text}]"), 1));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            "[\\[\\]{}\"\\\\a]{0,8}".prop_map(Value::from)
        ];
        leaf.prop_recursive(8, 64, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[\\[{\"\\\\]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn depth_of(value: &Value) -> usize {
        match value {
            Value::Array(values) => 1 + values.iter().map(depth_of).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(depth_of).max().unwrap_or(0),
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn a_text_is_as_deep_as_the_value_it_stands_for(value in values()) {
            prop_assert_eq!(depth(value.to_string().as_bytes()), depth_of(&value));
        }
    }
}
