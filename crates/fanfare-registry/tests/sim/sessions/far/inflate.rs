//! RFC 1951 by the book: slow, strict about the window, and sharing nothing with what makes the frames.

/// What the lengths 257 to 285 stand for: least length, and how many bits are added.
const LENGTHS: [(usize, u32); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];

/// The same for distances.
const DISTANCES: [(usize, u32); 30] = [
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 1),
    (7, 1),
    (9, 2),
    (13, 2),
    (17, 3),
    (25, 3),
    (33, 4),
    (49, 4),
    (65, 5),
    (97, 5),
    (129, 6),
    (193, 6),
    (257, 7),
    (385, 7),
    (513, 8),
    (769, 8),
    (1_025, 9),
    (1_537, 9),
    (2_049, 10),
    (3_073, 10),
    (4_097, 11),
    (6_145, 11),
    (8_193, 12),
    (12_289, 12),
    (16_385, 13),
    (24_577, 13),
];

/// In which order the lengths of the codes for lengths are written.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The message that `deflated` stands for (RFC 7692 section 7.2.2). Nothing in it may refer further back than `window_bytes`.
pub(super) fn inflate(deflated: &[u8], window_bytes: usize) -> Vec<u8> {
    let mut bytes = deflated.to_vec();
    bytes.extend([0, 0, 0xff, 0xff]);
    let mut bits = Bits { bytes: &bytes, at: 0 };
    let mut out = Vec::new();
    while !bits.is_over() {
        assert_eq!(bits.take(1), 0, "no block is the last one");
        match bits.take(2) {
            0 => bits.stored(&mut out),
            1 => {
                let lengths =
                    |n: usize| [8, 9, 7, 8][usize::from(n > 143) + usize::from(n > 255) + usize::from(n > 279)];
                let literals: Vec<u8> = (0..288).map(lengths).collect();
                bits.codes(&Codes::of(&literals), &Codes::of(&[5; 30]), window_bytes, &mut out);
            }
            2 => {
                let (literals, distances) = bits.tables();
                bits.codes(&literals, &distances, window_bytes, &mut out);
            }
            kind => panic!("a block of kind {kind}"),
        }
    }
    out
}

/// Bits from the lowest of the first byte on.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn is_over(&self) -> bool {
        self.at == self.bytes.len() * 8
    }

    fn take(&mut self, count: u32) -> usize {
        (0..count).fold(0, |value, place| {
            let byte = self.bytes.get(self.at / 8).expect("a message ends at the end of a block");
            let bit = usize::from(byte >> (self.at % 8) & 1);
            self.at += 1;
            value | bit << place
        })
    }

    fn stored(&mut self, out: &mut Vec<u8>) {
        self.at = self.at.next_multiple_of(8);
        let (length, check) = (self.take(16), self.take(16));
        assert_eq!(length, !check & 0xffff, "the length of a stored block");
        out.extend((0..length).map(|_| self.take(8) as u8));
    }

    /// Lengths of codes, themselves coded.
    fn tables(&mut self) -> (Codes, Codes) {
        let (literals, distances, count) = (self.take(5) + 257, self.take(5) + 1, self.take(4) + 4);
        let mut lengths = [0; 19];
        for &place in &ORDER[..count] {
            lengths[place] = self.take(3) as u8;
        }
        let codes = Codes::of(&lengths);
        let mut lengths = Vec::new();
        while lengths.len() < literals + distances {
            let (length, times) = match codes.next(self) {
                16 => (*lengths.last().expect("a length to repeat"), 3 + self.take(2)),
                17 => (0, 3 + self.take(3)),
                18 => (0, 11 + self.take(7)),
                length => (length as u8, 1),
            };
            lengths.extend(std::iter::repeat_n(length, times));
        }
        assert_eq!(lengths.len(), literals + distances, "lengths of all codes and no more");
        let (literals, distances) = lengths.split_at(literals);
        (Codes::of(literals), Codes::of(distances))
    }

    fn codes(&mut self, literals: &Codes, distances: &Codes, window_bytes: usize, out: &mut Vec<u8>) {
        loop {
            match literals.next(self) {
                literal @ 0..=255 => out.push(literal as u8),
                256 => return,
                length => {
                    let (least, more) = LENGTHS[length - 257];
                    let length = least + self.take(more);
                    let (least, more) = DISTANCES[distances.next(self)];
                    let distance = least + self.take(more);
                    assert!(distance <= out.len(), "nothing is said again of an earlier message");
                    assert!(distance <= window_bytes, "{distance} bytes back, of {window_bytes} that were agreed");
                    (0..length).for_each(|_| out.push(out[out.len() - distance]));
                }
            }
        }
    }
}

/// A canonical Huffman code: how many symbols have codes of each length, and the symbols in the order of their codes.
struct Codes {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Codes {
    fn of(lengths: &[u8]) -> Self {
        let mut counts = [0; 16];
        lengths.iter().for_each(|&length| counts[usize::from(length)] += 1);
        counts[0] = 0;
        let of_length = |wanted: u8| (0..lengths.len()).filter(move |&symbol| lengths[symbol] == wanted);
        Self { counts, symbols: (1..16).flat_map(of_length).collect() }
    }

    fn next(&self, bits: &mut Bits<'_>) -> usize {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for &count in &self.counts[1..] {
            code |= bits.take(1);
            if code < first + count {
                return self.symbols[index + code - first];
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        panic!("a code that nothing has");
    }
}

#[test]
fn the_book_is_read_as_others_read_it() {
    use fanfare_protocol::wire::{Deflater, DeflaterSettings, Opcode, Window};
    let block: String = (0..600_u32).map(|n| char::from(b'a' + (n * n % 23) as u8)).collect();
    let texts = ["x".to_owned(), "ha ".repeat(50), format!("{block}{block}"), format!("{block}?{}", &block[..90])];
    for text in texts {
        for (window, bytes) in [(Window::Bits15, 1 << 15), (Window::Bits12, 1 << 12), (Window::Bits9, 1 << 9)] {
            let mut frame = Vec::new();
            let settings = DeflaterSettings { threshold_bytes: 1, ..DeflaterSettings::default() };
            Deflater::new(settings).frame(Opcode::Text, text.as_bytes(), window, &mut frame);
            if frame[0] & 0x40 == 0 {
                continue;
            }
            let header = if frame[1] < 126 { 2 } else { 4 };
            assert_eq!(String::from_utf8(inflate(&frame[header..], bytes)).as_deref(), Ok(&*text));
        }
    }
}
