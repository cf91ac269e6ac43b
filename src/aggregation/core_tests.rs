use std::collections::BTreeMap;

use proptest::prelude::*;

use super::core::{Core, Seen};
use super::layout::Layout;
use super::resource::Function;
use crate::peers::{Column, KeyType, Rate, Table, Value};

const PERIOD: u64 = 10_000;
const TIMEOUT: u64 = 30_000;
const EXPIRE: u32 = 60_000;

fn table(columns: &[(&str, Option<u32>)], expire: u32) -> Table {
    let columns = columns.iter().map(|(name, period)| Column::named(name, 1, *period).unwrap()).collect();
    Table { id: 1, name: "t".into(), key_type: KeyType::String, key_length: 33, columns, expire, unknown: None }
}

fn counters(expire: u32) -> Table {
    table(&[("gpt0", None), ("gpc0", None), ("http_req_rate", Some(PERIOD as u32))], expire)
}

/// So many nodes with the same tables, each connected and without entries.
fn world(nodes: usize, function: Function) -> Core {
    let (source, target) = (counters(EXPIRE), counters(EXPIRE));
    let layout = Layout::new(&source, &[], function);
    let mut core = Core::new(nodes, TIMEOUT, 0);
    core.reset(layout.clone(), 0);
    for node in 0..nodes {
        core.source(node, layout.map(&source).unwrap(), EXPIRE);
        let (_, cells) = layout.taught(&target).unwrap();
        core.target(node, Some((layout.map(&target).unwrap(), cells, EXPIRE)));
        core.begin(node);
        core.finish(node, true);
    }
    core.advance(0);
    core
}

fn values(gpt0: u64, gpc0: u64, rate: Rate) -> [Value<'static>; 3] {
    [Value::Number(gpt0), Value::Number(gpc0), Value::Rate(rate)]
}

/// A node says that an entry was touched now.
fn tell(core: &mut Core, node: usize, key: &str, number: u32, gpc0: u64, now: u64) {
    let values = values(node as u64 + 1, gpc0, Rate { age: 0, current: gpc0 as u32, previous: 0 });
    core.update(node, Seen { key: key.as_bytes(), number, expires_in: None, values: &values }, now);
}

/// All that a node is to be taught: key, `gpt0`, `gpc0`, rate, time to live.
type Taught = (String, u64, u64, Rate, Option<u32>);

fn drain(core: &mut Core, node: usize, now: u64) -> Vec<Taught> {
    core.advance(now);
    let mut all = Vec::new();
    while let Some(row) = core.next(node, now) {
        let [Value::Number(gpt0), Value::Number(gpc0), Value::Rate(rate)] = row.values[..] else {
            panic!("{:?}", row.values)
        };
        all.push((String::from_utf8(row.key.to_vec()).unwrap(), gpt0, gpc0, rate, row.expires_in));
    }
    all
}

fn counts(core: &mut Core, node: usize, now: u64) -> Vec<(String, u64)> {
    drain(core, node, now).into_iter().map(|(key, _, gpc0, ..)| (key, gpc0)).collect()
}

fn row(key: &str, count: u64) -> (String, u64) {
    (key.to_owned(), count)
}

#[test]
fn what_nodes_count_is_added_up_and_taught_to_all_once() {
    let mut core = world(2, Function::Sum);
    tell(&mut core, 0, "a", 1, 3, 10);
    tell(&mut core, 1, "a", 1, 4, 11);
    tell(&mut core, 1, "b", 2, 5, 11);
    for node in [0, 1] {
        let taught = drain(&mut core, node, 20);
        let shown: Vec<_> = taught.iter().map(|(key, gpt0, gpc0, ..)| (&**key, *gpt0, *gpc0)).collect();
        // Tags are those of the last one.
        assert_eq!(shown, [("a", 2, 7), ("b", 2, 5)]);
        assert_eq!(taught[0].3, Rate { age: 10, current: 7, previous: 0 });
        assert_eq!(taught[0].4, Some(EXPIRE - 9));
        assert!(drain(&mut core, node, 21).is_empty(), "once");
    }
    assert_eq!((core.entries(0), core.entries(1), core.keys()), (1, 2, 2));
    // The same again is no news; less is: the node has restarted.
    tell(&mut core, 1, "b", 2, 5, 11);
    assert!(drain(&mut core, 0, 30).is_empty());
    tell(&mut core, 1, "a", 3, 1, 40);
    assert_eq!(counts(&mut core, 0, 50), [row("a", 4)]);
    let mut core = world(2, Function::Max);
    tell(&mut core, 0, "a", 1, 3, 10);
    tell(&mut core, 1, "a", 1, 4, 10);
    assert_eq!(counts(&mut core, 0, 20), [row("a", 4)]);
}

#[test]
fn nothing_is_taught_before_all_nodes_have_told_their_entries_or_time_is_over() {
    for late in [false, true] {
        let layout = Layout::new(&counters(EXPIRE), &[], Function::Sum);
        let mut core = Core::new(2, TIMEOUT, 0);
        core.reset(layout.clone(), 0);
        for node in [0, 1] {
            core.source(node, layout.map(&counters(EXPIRE)).unwrap(), EXPIRE);
            let cells = layout.taught(&counters(EXPIRE)).unwrap().1;
            core.target(node, Some((layout.map(&counters(EXPIRE)).unwrap(), cells, EXPIRE)));
        }
        core.begin(0);
        tell(&mut core, 0, "a", 1, 3, 10);
        core.finish(0, true);
        assert!(drain(&mut core, 0, 100).is_empty() && !core.teaches());
        assert_eq!(core.due(), Some(TIMEOUT));
        if late {
            assert!(drain(&mut core, 0, TIMEOUT - 1).is_empty());
            assert_eq!(counts(&mut core, 0, TIMEOUT), [row("a", 3)]);
        }
        core.begin(1);
        tell(&mut core, 1, "a", 1, 4, 200);
        core.finish(1, false);
        let now = if late { TIMEOUT + 1 } else { 201 };
        assert_eq!(counts(&mut core, 0, now), [row("a", 7)]);
        assert!(core.teaches());
    }
}

#[test]
fn a_share_leaves_with_its_entry_with_a_resync_and_with_its_node() {
    let mut core = world(2, Function::Sum);
    tell(&mut core, 0, "a", 1, 3, 0);
    tell(&mut core, 1, "a", 1, 4, 30_000);
    counts(&mut core, 0, 30_000);
    // It expires on one node, then on the other: zeros that go at once.
    assert_eq!(counts(&mut core, 0, 60_020), [row("a", 4)]);
    let gone = drain(&mut core, 0, 90_020);
    assert_eq!(gone, [("a".to_owned(), 0, 0, Rate::default(), Some(1_000))]);
    assert_eq!((core.keys(), core.entries(0), core.entries(1)), (1, 0, 0));
    assert_eq!(drain(&mut core, 1, 90_020), gone, "the other node too");
    assert_eq!(core.keys(), 0);

    // Cleared on a node.
    tell(&mut core, 0, "a", 2, 3, 100_000);
    tell(&mut core, 0, "b", 3, 3, 100_000);
    tell(&mut core, 1, "a", 1, 4, 100_000);
    counts(&mut core, 0, 100_000);
    core.begin(0);
    tell(&mut core, 0, "b", 3, 3, 100_001);
    core.finish(0, false);
    assert!(counts(&mut core, 0, 100_002).is_empty(), "the node may still learn them");
    core.begin(0);
    tell(&mut core, 0, "b", 3, 3, 100_003);
    core.finish(0, true);
    assert_eq!(counts(&mut core, 0, 100_004), [row("a", 4)]);

    // Away for a moment, and for long.
    tell(&mut core, 0, "a", 4, 3, 100_005);
    counts(&mut core, 0, 100_006);
    core.lost(1, 100_006);
    // Only its rate is taught meanwhile, as windows end.
    assert!(counts(&mut core, 0, 100_006 + TIMEOUT - 1).iter().all(|taught| *taught == row("a", 7)));
    assert_eq!(counts(&mut core, 0, 100_006 + TIMEOUT), [row("a", 3)]);
    assert_eq!(core.entries(1), 0);
    assert_eq!(core.pending(1), 0, "nothing is kept for who is away");
    core.begin(1);
    tell(&mut core, 1, "a", 1, 4, 131_000);
    core.finish(1, true);
    core.mark_all(1);
    assert_eq!(counts(&mut core, 0, 131_001), [row("a", 7)]);
    assert_eq!(counts(&mut core, 1, 131_001), [row("a", 7), row("b", 3)]);
}

#[test]
fn an_entry_that_lives_on_is_taught_again_before_its_target_forgets_it() {
    let mut core = world(1, Function::Sum);
    let cells = core.layout().unwrap().taught(&counters(10_000)).unwrap().1;
    let map = core.layout().unwrap().map(&counters(10_000)).unwrap();
    core.target(0, Some((map, cells, 10_000)));
    let values = values(0, 3, Rate::default());
    core.update(0, Seen { key: b"a", number: 1, expires_in: None, values: &values }, 0);
    let mut times = Vec::new();
    for now in (0..70_000).step_by(50) {
        times.extend(drain(&mut core, 0, now).into_iter().map(|row| (now, row.2, row.4.unwrap())));
    }
    let (last, before) = times.split_last().unwrap();
    assert_eq!((last.1, last.2), (0, 1_000), "at the end it is gone");
    assert!((60_000..60_100).contains(&last.0));
    for (one, next) in before.iter().zip(&times[1..]) {
        let lives = one.0 + u64::from(one.2).min(10_000);
        assert!(next.0 < lives || next.1 == 0, "{times:?}");
    }
    assert!(before.len() < 20, "{times:?}");
}

#[test]
fn what_is_left_of_an_earlier_time_is_taken_back() {
    let layout = Layout::new(&counters(EXPIRE), &[], Function::Sum);
    let mut core = Core::new(2, TIMEOUT, 0);
    core.reset(layout.clone(), 0);
    for node in [0, 1] {
        core.source(node, layout.map(&counters(EXPIRE)).unwrap(), EXPIRE);
        let cells = layout.taught(&counters(EXPIRE)).unwrap().1;
        core.target(node, Some((layout.map(&counters(EXPIRE)).unwrap(), cells, EXPIRE)));
        core.begin(node);
    }
    let old = values(0, 9, Rate::default());
    let zero = values(0, 0, Rate { age: 30_000, current: 5, previous: 5 });
    for key in ["kept", "left"] {
        core.seen_in_target(0, Seen { key: key.as_bytes(), number: 1, expires_in: Some(5), values: &old }, 0);
    }
    core.seen_in_target(0, Seen { key: b"zero", number: 1, expires_in: Some(5), values: &zero }, 0);
    tell(&mut core, 0, "kept", 1, 3, 0);
    core.finish(0, true);
    // Not before it is known what the others have.
    assert!(counts(&mut core, 0, 5_000).is_empty());
    core.finish(1, true);
    assert_eq!(counts(&mut core, 0, 5_001), [row("kept", 3)]);
    assert_eq!(counts(&mut core, 0, 8_000), [row("left", 0)]);
    assert_eq!(counts(&mut core, 1, 8_000), [row("kept", 3)], "where it is not, nothing is to be taken back");
    assert_eq!(core.keys(), 1);
}

#[test]
fn tables_that_do_not_fit_are_told() {
    let source = counters(EXPIRE);
    let layout = Layout::new(&source, &["gpc0".into(), "http_req_rate".into()], Function::Sum);
    let (taught, cells) = layout.taught(&table(&[("gpc0", None), ("conn_cnt", None)], 5)).unwrap();
    assert_eq!((taught.columns.len(), cells), (1, vec![0]));
    for (table, words) in [
        (table(&[("conn_cnt", None)], 5), "none of the data"),
        (table(&[("http_req_rate", Some(1))], 5), "another period"),
        (Table { key_length: 9, ..counters(5) }, "keys"),
        (Table { key_type: KeyType::Binary, ..counters(5) }, "keys"),
        (Table { unknown: Some(40), ..counters(5) }, "not known"),
    ] {
        let fault = layout.taught(&table).unwrap_err();
        assert!(fault.contains(words), "{fault}");
    }
}

/// A counter of events as HAProxy has it.
#[derive(Debug, Clone, Copy, Default)]
struct Frequency {
    began: u64,
    current: u32,
    previous: u32,
}

impl Frequency {
    fn count(&mut self, now: u64) {
        if now - self.began >= PERIOD {
            let old = if now - self.began < 2 * PERIOD { self.current } else { 0 };
            (self.previous, self.current) = (old, 0);
            self.began = now - (now - self.began) % PERIOD;
        }
        self.current += 1;
    }

    fn rate(self, now: u64) -> Rate {
        Rate { age: (now - self.began) as u32, current: self.current, previous: self.previous }
    }
}

/// Events in the last period by this rate, before they are cut to a whole number.
fn estimate(rate: Rate, later: u64) -> f64 {
    let float = |number: u64| f64::from(u32::try_from(number).unwrap());
    let (age, period) = (f64::from(rate.age) + float(later), float(PERIOD));
    let (current, previous) = (f64::from(rate.current), f64::from(rate.previous));
    if age < period {
        current + previous * (period - age) / period
    } else {
        current * (2.0 * period - age).max(0.0) / period
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Taught at each turn of 20 ms, the rate that a target shows is the sum of what the nodes show, at any time.
    #[test]
    fn rates_are_the_sum_of_those_of_the_nodes_as_they_fade(
        events in proptest::collection::vec((0..3_usize, 0..900_u64), 1..120),
    ) {
        let mut core = world(3, Function::Sum);
        let mut nodes = [Frequency::default(); 3];
        let mut target: Option<(u64, Rate)> = None;
        let mut events = events.into_iter().scan(0, |time, (node, pause)| { *time += pause; Some((*time, node)) }).peekable();
        let (mut taught, mut number) = (0, 0);
        for now in (0..150_000).step_by(20) {
            while let Some((time, node)) = events.next_if(|(time, _)| *time <= now) {
                nodes[node].count(time);
                number += 1;
                let values = values(0, 1, nodes[node].rate(time));
                core.update(node, Seen { key: b"k", number, expires_in: None, values: &values }, time);
            }
            for (.., rate, left) in drain(&mut core, 0, now) {
                taught += usize::from(left != Some(1_000));
                target = Some((now, rate));
            }
            let expected: f64 = nodes.iter().map(|node| estimate(node.rate(now), 0)).sum();
            let seen = target.map_or(0.0, |(since, rate)| estimate(rate, now - since));
            prop_assert!((seen - expected).abs() <= 1.0, "{} for {} at {}", seen, expected, now);
        }
        // For each event, for the end of each window of each node, and to see whether the entry lives on.
        prop_assert!(taught < 120 + 3 * 16 + 20, "taught {} times", taught);
        prop_assert_eq!(core.entries(0) + core.entries(1) + core.entries(2), 0);
    }

    /// Whatever comes first, the result is that of the last word of each node; and nothing is left of what is gone.
    #[test]
    fn the_order_in_which_nodes_are_heard_does_not_matter(
        told in proptest::collection::vec((0..3_usize, 0..6_u8, 1..100_u64), 0..60),
        order in proptest::collection::vec(any::<u8>(), 60),
        function in prop_oneof![Just(Function::Sum), Just(Function::Max)],
        away in 0..3_usize,
    ) {
        let mut last: BTreeMap<(u8, usize), u64> = BTreeMap::new();
        for (node, key, count) in &told {
            last.insert((*key, *node), *count);
        }
        let run = |told: &[(usize, u8, u64)], pause: usize| {
            let mut core = world(3, function);
            let mut target = BTreeMap::new();
            for (at, (node, key, count)) in told.iter().enumerate() {
                tell(&mut core, *node, &key.to_string(), at as u32 + 1, *count, 5);
                if at % (pause + 1) == 0 {
                    target.extend(counts(&mut core, 1, 6));
                }
            }
            target.extend(counts(&mut core, 1, 7));
            let before = target.clone();
            core.lost(away, 7);
            if away == 1 { core.begin(1); core.lost(2, 7); }
            target.extend(counts(&mut core, 1, 7 + TIMEOUT));
            (before, target)
        };
        // Nodes mixed in another way, each in its own order.
        let mut mixed: Vec<_> = told.iter().copied().enumerate().collect();
        let mut queues: Vec<Vec<(usize, u8, u64)>> = vec![Vec::new(); 3];
        for (_, entry) in mixed.drain(..).rev() {
            queues[entry.0].push(entry);
        }
        let mut other = Vec::new();
        for pick in order.iter().cycle() {
            if queues.iter().all(Vec::is_empty) { break; }
            let filled: Vec<usize> = (0..3).filter(|at| !queues[*at].is_empty()).collect();
            other.extend(queues[filled[usize::from(*pick) % filled.len()]].pop());
        }
        let merged = |skip: Option<usize>| {
            let mut all: BTreeMap<String, u64> = BTreeMap::new();
            for ((key, node), count) in &last {
                let sum = all.entry(key.to_string()).or_default();
                if Some(*node) == skip { continue; }
                *sum = match function { Function::Sum => *sum + count, Function::Max => (*sum).max(*count) };
            }
            all
        };
        let (one, two) = (run(&told, 0), run(&other, 7));
        prop_assert_eq!(&one.0, &merged(None));
        prop_assert_eq!(&one.0, &two.0);
        let gone = if away == 1 { 2 } else { away };
        prop_assert_eq!(&one.1, &merged(Some(gone)));
        prop_assert_eq!(&one.1, &two.1);
    }

    /// Anything may happen: keys, counts and notes stay right, and memory is given back.
    #[test]
    fn nothing_is_left_when_all_is_gone(
        steps in proptest::collection::vec((0..7_u8, 0..3_usize, 0..5_u8, 1..90_000_u64), 0..200),
    ) {
        let mut core = world(3, Function::Sum);
        let mut now = 0;
        for (at, (step, node, key, number)) in steps.into_iter().enumerate() {
            let key = key.to_string();
            match step {
                0 | 1 => tell(&mut core, node, &key, at as u32, number, now),
                2 => core.begin(node),
                3 => core.finish(node, number % 2 == 0),
                4 => core.lost(node, now),
                5 => {
                    let values = values(1, 1, Rate { age: 1, current: 1, previous: 1 });
                    core.seen_in_target(node, Seen { key: key.as_bytes(), number: 1, expires_in: Some(9), values: &values }, now);
                }
                _ => {
                    now += number / 3;
                    drain(&mut core, node, now);
                }
            }
            prop_assert!(core.keys() <= 5 && (0..3).all(|node| core.pending(node) <= 5 && core.entries(node) <= 5));
        }
        for _ in 0..3 {
            now += 200_000;
            (0..3).for_each(|node| drop(drain(&mut core, node, now)));
        }
        prop_assert_eq!((core.keys(), core.entries(0) + core.entries(1) + core.entries(2)), (0, 0));
    }
}
