//! The contributions of all nodes, and what is to be taught of them. Pure: entries and a clock go in, entries come out.
//!
//! The protocol knows no deletion. An entry that no node has any more is taught as zeros that expire at once, so that
//! nobody stays refused for what is gone.
//!
//! Memory: a node's entries that it has in its source table, and a note per entry and node that is to be taught.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::layout::{Layout, Map};
use super::merge::{Merged, Share, last_touched, merge, same};
use super::rate::Window;
use crate::peers::Value;

/// Milliseconds that an entry without contributions is taught for.
const GONE: u32 = 1_000;
/// A node has in its target table what nobody contributes to. It is taken back when nobody does for so long, in
/// milliseconds: another replica may have heard of it earlier than we do.
const STRAY: u64 = 2_000;
/// Between two looks at whether an entry lives on, at least, in milliseconds.
const REFRESH: u64 = 1_000;
/// Milliseconds that are looked at together.
const GRAIN: u64 = 16;
/// Texts that are known at a time; others are none.
const TEXTS: usize = 65_536;
/// Nodes that there can be: a note is one bit.
pub(super) const NODES: usize = 32;

/// An entry as a node tells it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) key: &'a [u8],
    pub(super) number: u32,
    pub(super) expires_in: Option<u32>,
    pub(super) values: &'a [Value<'a>],
}

/// An entry to teach.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row<'a> {
    pub(super) key: Arc<[u8]>,
    pub(super) expires_in: Option<u32>,
    pub(super) values: Vec<Value<'a>>,
}

#[derive(Debug, Default)]
struct Node {
    /// Where the values of its source table go, and how long its entries live; 0 for ever.
    source: Map,
    expire: u32,
    /// Where those of its target table go, the cells that are taught, and how long entries live there.
    target: Option<(Map, Vec<usize>, u32)>,
    generation: u32,
    connected: bool,
    /// All its entries have come once, and it has not been away for too long since.
    synced: bool,
    /// Since when it is away.
    away: Option<u64>,
    entries: usize,
    queue: VecDeque<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Empty keys are none: the slot is free then.
    key: Option<Arc<[u8]>>,
    shares: Vec<Share>,
    /// Nodes that are to be taught it.
    dirty: u32,
    /// Nodes that have it though nobody contributes.
    strays: u32,
    /// When it is looked at, in grains; 0 for never.
    due: u64,
    /// When its rates have to be made anew; 0 for never.
    rates_at: u64,
    /// How long it was taught for, and when to see whether it lives on; 0 for never.
    taught_until: u64,
    refresh_at: u64,
}

/// See the file.
#[derive(Debug)]
pub(super) struct Core {
    layout: Option<Layout>,
    timeout: u64,
    nodes: Vec<Node>,
    index: HashMap<Arc<[u8]>, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    timers: BTreeMap<u64, Vec<u32>>,
    texts: Vec<Box<[u8]>>,
    numbers: HashMap<Box<[u8]>, u64>,
    /// When it began, until it teaches.
    waiting: Option<u64>,
    /// Somebody else teaches. What is to be taught is noted all the same.
    standby: bool,
    scratch: Vec<u64>,
    windows: Vec<Window>,
}

impl Core {
    /// Nothing yet of so many nodes. One that is away for `timeout` milliseconds does not count any more.
    pub(super) fn new(nodes: usize, timeout: u64, now: u64) -> Core {
        Core {
            layout: None,
            timeout,
            nodes: (0..nodes.min(NODES)).map(|_| Node::default()).collect(),
            index: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            timers: BTreeMap::new(),
            texts: Vec::new(),
            numbers: HashMap::new(),
            waiting: Some(now),
            standby: false,
            scratch: Vec::new(),
            windows: Vec::new(),
        }
    }

    pub(super) fn layout(&self) -> Option<&Layout> {
        self.layout.as_ref()
    }

    /// Other data is brought together from now on. Everything is forgotten; all nodes must tell their entries again.
    pub(super) fn reset(&mut self, layout: Layout, now: u64) {
        let count = self.nodes.len();
        let connected: Vec<bool> = self.nodes.iter().map(|node| node.connected).collect();
        *self = Core::new(count, self.timeout, now);
        for (node, connected) in self.nodes.iter_mut().zip(connected) {
            node.connected = connected;
        }
        self.layout = Some(layout);
    }

    /// Where the values of a node's source table go; nowhere when it does not fit.
    pub(super) fn source(&mut self, node: usize, map: Map, expire: u32) {
        if let Some(node) = self.nodes.get_mut(node) {
            (node.source, node.expire) = (map, expire);
        }
    }

    /// How a node's target table is taught, if it can be.
    pub(super) fn target(&mut self, node: usize, target: Option<(Map, Vec<usize>, u32)>) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        let new = known.target != target;
        if new {
            self.forget_queue(node);
            if let Some(known) = self.nodes.get_mut(node) {
                known.target = target;
            }
            self.mark_all(node);
        }
    }

    /// A node tells all its entries from now on.
    pub(super) fn begin(&mut self, node: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.generation = node.generation.wrapping_add(1);
            (node.connected, node.away) = (true, None);
        }
    }

    /// A node has told all its entries: `all` that there are, so that others are gone.
    pub(super) fn finish(&mut self, node: usize, all: bool) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        known.synced = true;
        let generation = known.generation;
        if all {
            self.drop_shares(node, |share| share.generation != generation);
        }
    }

    /// The session with a node has ended.
    pub(super) fn lost(&mut self, node: usize, now: u64) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        known.connected = false;
        known.away.get_or_insert(now);
        self.forget_queue(node);
    }

    fn forget_queue(&mut self, node: usize) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        for at in std::mem::take(&mut known.queue) {
            if let Some(slot) = self.slots.get_mut(at as usize) {
                slot.dirty &= !(1 << node);
            }
            self.release(at);
        }
    }

    fn drop_shares(&mut self, node: usize, gone: impl Fn(&Share) -> bool) {
        for at in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(at) else { return };
            let before = slot.shares.len();
            slot.shares.retain(|share| usize::from(share.node) != node || !gone(share));
            if slot.shares.len() < before {
                if let Some(known) = self.nodes.get_mut(node) {
                    known.entries -= 1;
                }
                self.mark(at as u32);
            }
        }
    }

    /// An entry of a node's source table.
    pub(super) fn update(&mut self, node: usize, seen: Seen<'_>, now: u64) {
        let (Some(layout), Some(known)) = (&self.layout, self.nodes.get_mut(node)) else { return };
        if known.source.is_empty() {
            return;
        }
        let mut cells = std::mem::take(&mut self.scratch);
        cells.clear();
        cells.resize(layout.width, 0);
        for (value, cell) in seen.values.iter().zip(&known.source) {
            let Some(cell) = *cell else { continue };
            let number = match value {
                Value::Number(number) => *number,
                Value::Rate(rate) => {
                    let counts = u64::from(rate.current) << 32 | u64::from(rate.previous);
                    if let Some(began) = cells.get_mut(cell + 1).filter(|_| counts != 0) {
                        *began = (now.cast_signed() - i64::from(rate.age)).cast_unsigned();
                    }
                    counts
                }
                Value::Nothing | Value::Known(_) => 0,
                Value::Text(_, text) => intern(&mut self.texts, &mut self.numbers, text),
            };
            if let Some(cell) = cells.get_mut(cell) {
                *cell = number;
            }
        }
        let at = if let Some(at) = self.index.get(seen.key) { *at } else { self.add(seen.key) };
        self.share(node, at, &cells, seen, now);
        self.scratch = cells;
    }

    fn add(&mut self, key: &[u8]) -> u32 {
        let key: Arc<[u8]> = key.into();
        let slot = Slot { key: Some(Arc::clone(&key)), ..Slot::default() };
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        if let Some(free) = self.slots.get_mut(at as usize) {
            *free = slot;
        }
        self.index.insert(key, at);
        at
    }

    /// Takes over what a node has of an entry.
    fn share(&mut self, node: usize, at: u32, cells: &[u64], seen: Seen<'_>, now: u64) {
        let (Some(layout), Some(known)) = (&self.layout, self.nodes.get_mut(node)) else { return };
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        let expire = u64::from(known.expire);
        let (mut touched, mut expires_at) = match seen.expires_in.map(|left| u64::from(left).min(expire)) {
            // Where nothing expires, the time that HAProxy gives means nothing.
            _ if expire == 0 => (if seen.expires_in.is_some() { 0 } else { now }, 0),
            Some(left) => ((now + left).saturating_sub(expire), now + left.max(1)),
            None => (now, now + expire),
        };
        let (generation, number) = (known.generation, seen.number);
        let tags = layout.has_tags();
        let last = |slot: &Slot| tags.then(|| last_touched(&slot.shares).map(|share| share.node));
        let before = last(slot);
        slot.strays = 0;
        let changed = if let Some(share) = slot.shares.iter_mut().find(|share| usize::from(share.node) == node) {
            // What we never acknowledged comes again after a resync, as if it were touched now.
            if seen.expires_in.is_none() && share.number == number {
                (touched, expires_at) = (share.touched, share.expires_at);
            }
            let same = layout.parts.iter().all(|part| same(part, &share.cells, cells));
            if !same {
                share.cells.copy_from_slice(cells);
            }
            (share.number, share.generation, share.touched, share.expires_at) =
                (number, generation, touched, expires_at);
            !same
        } else {
            let node = node as u8;
            // Most entries are of few nodes.
            slot.shares.reserve_exact(1);
            slot.shares.push(Share { node, number, generation, touched, expires_at, cells: cells.into() });
            known.entries += 1;
            true
        };
        let changed = changed || before != last(slot);
        if expires_at > 0 {
            self.schedule(at, expires_at);
        }
        if changed {
            self.mark(at);
        }
    }

    /// An entry of a node's target table. One that nobody contributes to, left over from before we began, is taken back.
    pub(super) fn seen_in_target(&mut self, node: usize, seen: Seen<'_>, now: u64) {
        let (Some(layout), Some(known)) = (&self.layout, self.nodes.get(node)) else { return };
        let Some((map, _, _)) = &known.target else { return };
        let counts = |value: &Value<'_>, cell: Option<usize>| match value {
            Value::Number(number) => *number > 0 && cell.is_some(),
            Value::Rate(rate) => {
                let period = cell.and_then(|cell| layout.part(cell)).and_then(|part| part.column.period());
                period.is_some_and(|period| rate.value(period, 0) > 0)
            }
            Value::Nothing | Value::Text(..) | Value::Known(_) => false,
        };
        if !seen.values.iter().zip(map).any(|(value, cell)| counts(value, *cell)) {
            return;
        }
        let at = if let Some(at) = self.index.get(seen.key) { *at } else { self.add(seen.key) };
        if let Some(slot) = self.slots.get_mut(at as usize)
            && slot.shares.is_empty()
        {
            slot.strays |= 1 << node;
            self.schedule(at, now + STRAY);
        }
    }

    /// Time passes. Whether something is to be taught.
    pub(super) fn advance(&mut self, now: u64) -> bool {
        for node in 0..self.nodes.len() {
            let Some(known) = self.nodes.get_mut(node) else { break };
            if known.away.is_some_and(|since| now.saturating_sub(since) >= self.timeout) {
                (known.away, known.synced) = (None, false);
                self.drop_shares(node, |_| true);
            }
        }
        if let Some(since) = self.waiting
            && self.layout.is_some()
            && (self.nodes.iter().all(|node| node.synced) || now.saturating_sub(since) >= self.timeout)
        {
            self.waiting = None;
            for node in 0..self.nodes.len() {
                self.mark_all(node);
            }
        }
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key() * GRAIN <= now) {
            let (grain, slots) = entry.remove_entry();
            for at in slots {
                self.look(at, grain, now);
            }
        }
        self.nodes.iter().any(|node| !node.queue.is_empty())
    }

    /// When time is to pass again at the latest, if anything depends on it.
    pub(super) fn due(&self) -> Option<u64> {
        let timer = self.timers.first_key_value().map(|(grain, _)| grain * GRAIN);
        let away = self.nodes.iter().filter_map(|node| node.away).min();
        let waiting = self.waiting.filter(|_| self.layout.is_some());
        let timeout = away.into_iter().chain(waiting).min().map(|since| since + self.timeout);
        timer.into_iter().chain(timeout).min()
    }

    fn schedule(&mut self, at: u32, time: u64) {
        let grain = time / GRAIN + 1;
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        if slot.due == 0 || grain < slot.due {
            slot.due = grain;
            self.timers.entry(grain).or_default().push(at);
        }
    }

    /// Looks at an entry whose time has come.
    fn look(&mut self, at: u32, grain: u64, now: u64) {
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        // It is looked at in another grain, or another entry has the slot.
        if slot.key.is_none() || slot.due != grain {
            return;
        }
        slot.due = 0;
        let nodes = &mut self.nodes;
        let before = slot.shares.len();
        slot.shares.retain(|share| {
            let stays = share.expires_at == 0 || share.expires_at > now;
            if let Some(node) = nodes.get_mut(usize::from(share.node)).filter(|_| !stays) {
                node.entries -= 1;
            }
            stays
        });
        let mut changed = slot.shares.len() < before;
        if slot.rates_at != 0 && slot.rates_at <= now {
            slot.rates_at = 0;
            changed = true;
        }
        if slot.refresh_at != 0 && slot.refresh_at <= now {
            slot.refresh_at = 0;
            let lives = slot.shares.iter().any(|share| share.expires_at == 0 || share.expires_at > slot.taught_until);
            changed |= lives;
            if !lives && slot.taught_until > now {
                slot.refresh_at = now + ((slot.taught_until - now) / 2).max(REFRESH);
            }
        }
        if slot.shares.is_empty() {
            (slot.rates_at, slot.refresh_at) = (0, 0);
        }
        let next = slot.shares.iter().map(|share| share.expires_at).chain([slot.rates_at, slot.refresh_at]);
        let next = next.filter(|time| *time != 0).min();
        let stray = slot.shares.is_empty() && slot.strays != 0;
        if stray && self.waiting.is_some() {
            self.schedule(at, now + STRAY);
            return;
        }
        if changed {
            self.mark(at);
        } else if stray {
            let strays = slot.strays;
            self.mark_for(at, strays);
        }
        match next {
            Some(time) => self.schedule(at, time),
            None => self.release(at),
        }
    }

    fn mark(&mut self, at: u32) {
        self.mark_for(at, u32::MAX);
    }

    fn mark_for(&mut self, at: u32, nodes: u32) {
        if self.waiting.is_some() {
            return;
        }
        let Some(slot) = self.slots.get_mut(at as usize).filter(|slot| slot.key.is_some()) else { return };
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let bit = 1 << number;
            if node.connected && node.target.is_some() && slot.dirty & bit == 0 && nodes & bit != 0 {
                slot.dirty |= bit;
                node.queue.push_back(at);
            }
        }
        self.release(at);
    }

    /// A node is to be taught everything.
    pub(super) fn mark_all(&mut self, node: usize) {
        for at in 0..self.slots.len() {
            if self.slots.get(at).is_some_and(|slot| !slot.shares.is_empty()) {
                self.mark_for(at as u32, 1 << node);
            }
        }
    }

    /// Frees the slot of an entry that nobody has and nobody is to be taught.
    fn release(&mut self, at: u32) {
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        if slot.dirty != 0 || !slot.shares.is_empty() || (slot.strays != 0 && slot.due != 0) {
            return;
        }
        if let Some(key) = slot.key.take() {
            *slot = Slot::default();
            self.index.remove(&key);
            self.free.push(at);
        }
    }

    /// The next entry to teach a node.
    pub(super) fn next(&mut self, node: usize, now: u64) -> Option<Row<'_>> {
        let known = self.nodes.get_mut(node).filter(|_| !self.standby)?;
        let at = known.queue.pop_front()?;
        let (_, cells, expire) = known.target.as_ref()?;
        let (cells, expire) = (cells.clone(), u64::from(*expire));
        let layout = self.layout.as_ref()?;
        let slot = self.slots.get_mut(at as usize)?;
        slot.dirty &= !(1 << node);
        slot.strays &= !(1 << node);
        let key = slot.key.clone()?;
        let left = if slot.shares.is_empty() {
            Some(u64::from(GONE))
        } else {
            let longest = slot.shares.iter().map(|share| share.expires_at);
            let longest = longest.map(|at| if at == 0 { None } else { Some(at.saturating_sub(now).max(1)) });
            longest.reduce(|one, other| one.zip(other).map(|(one, other)| one.max(other))).flatten()
        };
        let (mut numbers, mut lasts) = (Vec::with_capacity(cells.len()), None::<u64>);
        for cell in &cells {
            let Some(part) = layout.part(*cell) else { continue };
            let (merged, right) = merge(part, *cell, &slot.shares, layout.function, &mut self.windows, now);
            lasts = [lasts, right].into_iter().flatten().min();
            numbers.push(merged);
        }
        slot.rates_at = lasts.map_or(0, |lasts| now + lasts);
        if expire > 0 && !slot.shares.is_empty() {
            let taught = left.unwrap_or(expire).min(expire);
            slot.taught_until = now + taught;
            slot.refresh_at = now + (taught / 2).max(REFRESH);
        }
        let next = [slot.rates_at, slot.refresh_at].into_iter().filter(|time| *time != 0).min();
        if let Some(time) = next.filter(|_| !slot.shares.is_empty()) {
            self.schedule(at, time);
        }
        self.release(at);
        let values = numbers.into_iter().map(|merged| match merged {
            Merged::Number(number) => Value::Number(number),
            Merged::Rate(rate) => Value::Rate(rate),
            Merged::Text(number) => {
                let text = number.checked_sub(1).and_then(|at| self.texts.get(at as usize));
                text.map_or(Value::Nothing, |text| Value::Text(1, text))
            }
        });
        let expires_in = left.map(|left| u32::try_from(left).unwrap_or(u32::MAX));
        Some(Row { key, expires_in, values: values.collect() })
    }

    /// Leaves the teaching to somebody else, or takes it up again.
    pub(super) fn stand_by(&mut self, standby: bool) {
        self.standby = standby;
    }

    /// Whether it leaves the teaching to somebody else.
    pub(super) fn stands_by(&self) -> bool {
        self.standby
    }

    /// How many entries a node is to be taught.
    pub(super) fn pending(&self, node: usize) -> usize {
        self.nodes.get(node).map_or(0, |node| node.queue.len())
    }

    /// Whether it teaches. Until all nodes have told their entries, or the time for it is over, sums would be too small.
    pub(super) fn teaches(&self) -> bool {
        self.waiting.is_none()
    }

    /// Entries of a node that count.
    pub(super) fn entries(&self, node: usize) -> usize {
        self.nodes.get(node).map_or(0, |node| node.entries)
    }

    /// Entries of all nodes together, each key once.
    pub(super) fn keys(&self) -> usize {
        self.index.len()
    }
}

/// The number of a text, counted from 1.
fn intern(texts: &mut Vec<Box<[u8]>>, numbers: &mut HashMap<Box<[u8]>, u64>, text: &[u8]) -> u64 {
    if let Some(number) = numbers.get(text) {
        return *number;
    }
    if texts.len() >= TEXTS {
        return 0;
    }
    texts.push(text.into());
    let number = texts.len() as u64;
    numbers.insert(text.into(), number);
    number
}
