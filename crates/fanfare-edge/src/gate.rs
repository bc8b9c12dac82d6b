//! How many sockets may be open: in all, and from one address.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use fanfare_fanout::Budget;
use fanfare_guard::Buckets;
use fanfare_protocol::Rate;
use hyper::StatusCode;
use parking_lot::Mutex;

use crate::observed::{BeyondLimits, Limit};
use crate::problem::Problem;

/// Counts open sockets.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Changed by a reload, as the other bounds.
    connections_max: AtomicUsize,
    /// Who came while it was 0 is not counted by address.
    per_ip_max: AtomicUsize,
    /// 0: no bound.
    per_ip_per_second_max: AtomicU32,
    /// Limits are only counted: who is beyond one is let in, and counted below.
    observes: AtomicBool,
    beyond: Arc<BeyondLimits>,
    /// Bytes queued in the process; `None` where those who are let in have nothing to do with them.
    queued: Option<Arc<Budget>>,
    open: AtomicUsize,
    per_ip: DashMap<IpAddr, usize>,
    /// Of who came lately: those who might come too often.
    often: Mutex<Buckets<IpAddr>>,
}

/// What a gate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GateLimits {
    /// Sockets at once.
    pub(crate) connections_max: usize,
    /// The same from one address; 0: no bound.
    pub(crate) per_ip_max: usize,
    /// Sockets a second from one address; 0: no bound.
    pub(crate) per_ip_per_second_max: u32,
    /// Whether who is beyond a bound is let in, and only counted.
    pub(crate) observes: bool,
}

/// Why a socket was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The node is full.
    Full,
    /// What is queued for those who are in comes near its bound.
    Memory,
    /// This address has enough.
    Address,
    /// This address comes too often.
    TooOften,
    /// Places are counted by address, and the proxy does not say whose client this is.
    Unknown,
}

impl Refused {
    /// The refusal of a request.
    pub(crate) fn problem(self) -> Problem {
        let (status, code, detail) = match self {
            Self::Full => (StatusCode::SERVICE_UNAVAILABLE, "connections_max", "full"),
            Self::Memory => {
                let detail = "what is queued for slow readers comes near its bound";
                (StatusCode::SERVICE_UNAVAILABLE, "outbox_total_bytes_max", detail)
            }
            Self::Address => (StatusCode::TOO_MANY_REQUESTS, "connections_per_ip_max", "per address"),
            Self::TooOften => {
                (StatusCode::TOO_MANY_REQUESTS, "handshakes_per_second_per_ip_max", "too often from this address")
            }
            Self::Unknown => (StatusCode::BAD_REQUEST, "client_unknown", "the proxy does not say who the client is"),
        };
        Problem::new(status, code, detail)
    }
}

/// A socket's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    /// The client's, where it is known.
    address: Option<IpAddr>,
    /// This is one of the places of its address.
    is_counted: bool,
    /// It is one of the gate's places at all.
    has_place: bool,
}

impl Gate {
    pub(crate) fn new(limits: GateLimits, beyond: Arc<BeyondLimits>) -> Arc<Self> {
        Self::make(limits, beyond, None)
    }

    /// The same, which lets nobody in while what is queued comes near its bound: who comes now would be among those that make place.
    pub(crate) fn before(limits: GateLimits, beyond: Arc<BeyondLimits>, queued: Arc<Budget>) -> Arc<Self> {
        Self::make(limits, beyond, Some(queued))
    }

    fn make(limits: GateLimits, beyond: Arc<BeyondLimits>, queued: Option<Arc<Budget>>) -> Arc<Self> {
        let gate = Self {
            connections_max: AtomicUsize::new(0),
            per_ip_max: AtomicUsize::new(0),
            per_ip_per_second_max: AtomicU32::new(0),
            observes: AtomicBool::new(false),
            beyond,
            queued,
            open: AtomicUsize::new(0),
            per_ip: DashMap::new(),
            often: Mutex::default(),
        };
        gate.set_limits(limits);
        Arc::new(gate)
    }

    /// Seven eighths of the budget are used. Holds also where other limits are only observed: it bounds memory.
    fn is_pressed(&self) -> bool {
        self.queued.as_ref().is_some_and(|queued| queued.used() > queued.bytes_max() - queued.bytes_max() / 8)
    }

    /// Other bounds from here on. Who is in stays.
    pub(crate) fn set_limits(&self, limits: GateLimits) {
        self.connections_max.store(limits.connections_max, Ordering::Relaxed);
        self.per_ip_max.store(limits.per_ip_max, Ordering::Relaxed);
        self.per_ip_per_second_max.store(limits.per_ip_per_second_max, Ordering::Relaxed);
        self.observes.store(limits.observes, Ordering::Relaxed);
    }

    /// Whether what is beyond `limit` is let pass; counted either way.
    fn lets_pass(&self, limit: Limit) -> bool {
        self.beyond.count(limit, self.observes.load(Ordering::Relaxed))
    }

    /// Whether an address comes too often. Each time counts that is let in.
    fn is_too_often(&self, address: IpAddr, now: Duration) -> bool {
        let rate = Rate::per_second(self.per_ip_per_second_max.load(Ordering::Relaxed));
        rate.is_some_and(|rate| !self.often.lock().take(address, rate, now))
    }

    /// A place, and where the address is known one of its places.
    pub(crate) fn enter(self: &Arc<Self>, address: Option<IpAddr>, now: Duration) -> Result<Permit, Refused> {
        if self.is_pressed() {
            return Err(Refused::Memory);
        }
        let is_full = self.open.fetch_add(1, Ordering::Relaxed) >= self.connections_max.load(Ordering::Relaxed);
        if is_full && !self.lets_pass(Limit::Connections) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        let mut permit = Permit { gate: self.clone(), address: None, is_counted: false, has_place: true };
        // If the address has enough the permit goes, and the place with it.
        address.map_or(Ok(()), |address| permit.count(address, now))?;
        Ok(permit)
    }

    /// For a canary: it is let in also where nobody else is, and takes nobody's place.
    pub(crate) fn wave_through(self: &Arc<Self>) -> Permit {
        Permit { gate: self.clone(), address: None, is_counted: false, has_place: false }
    }
}

impl Permit {
    /// Takes one of the places of an address, once it is known; what was taken before of another's is given back.
    pub(crate) fn count(&mut self, address: IpAddr, now: Duration) -> Result<(), Refused> {
        self.forget();
        self.address = Some(address);
        let address = counted_as(address);
        if self.gate.is_too_often(address, now) && !self.gate.lets_pass(Limit::HandshakesPerIp) {
            return Err(Refused::TooOften);
        }
        let per_ip_max = self.gate.per_ip_max.load(Ordering::Relaxed);
        if per_ip_max == 0 {
            return Ok(());
        }
        let mut count = self.gate.per_ip.entry(address).or_insert(0);
        if *count >= per_ip_max && !self.gate.lets_pass(Limit::ConnectionsPerIp) {
            return Err(Refused::Address);
        }
        *count += 1;
        self.is_counted = true;
        Ok(())
    }

    /// For a client whom nobody names: where places are counted by address, it may not have one by not being named.
    pub(crate) fn count_unnamed(&self) -> Result<(), Refused> {
        let is_counted = self.gate.per_ip_max.load(Ordering::Relaxed) > 0
            || self.gate.per_ip_per_second_max.load(Ordering::Relaxed) > 0;
        if is_counted && !self.gate.lets_pass(Limit::ConnectionsPerIp) { Err(Refused::Unknown) } else { Ok(()) }
    }

    /// Remembers an address whose places are not counted.
    pub(crate) fn tell(&mut self, address: Option<IpAddr>) {
        self.forget();
        self.address = address;
    }

    /// The client's address, where it is known.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    fn forget(&mut self) {
        let Some(address) = self.address.filter(|_| std::mem::take(&mut self.is_counted)) else { return };
        self.gate.per_ip.remove_if_mut(&counted_as(address), |_, count| {
            *count -= 1;
            *count == 0
        });
    }
}

/// Whose an address is: a customer has a whole network of IPv6 (/64), and could come from another address of it each time.
fn counted_as(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.has_place {
            self.gate.open.fetch_sub(1, Ordering::Relaxed);
        }
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use fanfare_registry::RegistryStats;

    use super::*;

    fn gate(connections_max: usize, per_ip_max: usize, observes: bool) -> Arc<Gate> {
        Gate::new(GateLimits { connections_max, per_ip_max, per_ip_per_second_max: 0, observes }, Arc::default())
    }

    #[test]
    fn places_are_bounded_in_all_and_per_address_and_come_back() {
        let gate = gate(3, 2, false);
        let one = Some(IpAddr::from([127, 0, 0, 1]));
        let two = Some(IpAddr::from([127, 0, 0, 2]));
        let a = gate.enter(one, Duration::ZERO).expect("a place");
        let b = gate.enter(one, Duration::ZERO).expect("a place");
        assert_eq!(gate.enter(one, Duration::ZERO).err(), Some(Refused::Address));
        let c = gate.enter(two, Duration::ZERO).expect("a place");
        assert_eq!(gate.enter(two, Duration::ZERO).err(), Some(Refused::Full));
        assert_eq!(gate.enter(None, Duration::ZERO).err(), Some(Refused::Full));
        drop((a, c));
        let d = gate.enter(one, Duration::ZERO).expect("the place is free again");
        gate.set_limits(GateLimits { connections_max: 2, per_ip_max: 3, per_ip_per_second_max: 0, observes: false });
        assert_eq!(gate.enter(None, Duration::ZERO).err(), Some(Refused::Full), "other bounds hold at once");
        gate.set_limits(GateLimits { connections_max: 3, per_ip_max: 1, per_ip_per_second_max: 0, observes: false });
        assert_eq!(gate.enter(one, Duration::ZERO).err(), Some(Refused::Address));
        drop((b, d));
        assert_eq!(gate.open.load(Ordering::Relaxed), 0);
        assert!(gate.per_ip.is_empty());
    }

    #[test]
    fn nobody_is_let_in_while_seven_eighths_of_the_budget_are_used() {
        let budget = Arc::new(Budget::new(800));
        let limits = GateLimits { connections_max: 10, per_ip_max: 0, per_ip_per_second_max: 0, observes: true };
        let gate = Gate::before(limits, Arc::default(), budget.clone());
        assert!(budget.charge(700));
        drop(gate.enter(None, Duration::ZERO).expect("a place"));
        assert!(budget.charge(1));
        assert_eq!(gate.enter(None, Duration::ZERO).err(), Some(Refused::Memory));
        budget.release(1);
        drop(gate.enter(None, Duration::ZERO).expect("a place"));
        assert_eq!(gate.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_canary_is_let_in_where_it_is_full_and_takes_no_place() {
        let gate = gate(1, 1, false);
        let a = gate.wave_through();
        let b = gate.enter(None, Duration::ZERO).expect("the place is free");
        let c = gate.wave_through();
        drop((a, c));
        assert_eq!(gate.enter(None, Duration::ZERO).err(), Some(Refused::Full), "none has become free");
        drop(b);
        assert_eq!(gate.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn observed_limits_let_pass_and_count() {
        let gate = gate(3, 2, true);
        let one = Some(IpAddr::from([127, 0, 0, 1]));
        let permits: Vec<_> = (0..5).map(|_| gate.enter(one, Duration::ZERO).expect("a place")).collect();
        assert_eq!(gate.beyond.totals(&RegistryStats::default()), [[0; 11], [2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]]);
        assert_eq!(permits[0].count_unnamed(), Ok(()));
        drop(permits);
        assert_eq!(gate.open.load(Ordering::Relaxed), 0);
        assert!(gate.per_ip.is_empty());
    }

    #[test]
    fn a_place_by_address_is_taken_when_the_address_is_known_and_given_back_once() {
        let gate = gate(5, 1, false);
        let [one, two] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let mut a = gate.enter(None, Duration::ZERO).expect("a place");
        let mut b = gate.enter(None, Duration::ZERO).expect("a proxy's sockets have no address yet");
        assert_eq!((a.address(), a.count(one, Duration::ZERO)), (None, Ok(())));
        assert_eq!(b.count(one, Duration::ZERO), Err(Refused::Address));
        assert_eq!((b.count(two, Duration::ZERO), b.address()), (Ok(()), Some(two)));
        // Told and not counted: another may have its place.
        b.tell(Some(one));
        let c = gate.enter(Some(two), Duration::ZERO).expect("the place is free again");
        assert_eq!(b.count(one, Duration::ZERO), Err(Refused::Address));
        drop((a, b));
        assert_eq!(gate.enter(Some(one), Duration::ZERO).map(|permit| permit.address()), Ok(Some(one)));
        assert_eq!(c.count_unnamed(), Err(Refused::Unknown));
        drop(c);
        assert_eq!(gate.open.load(Ordering::Relaxed), 0);
        assert!(gate.per_ip.is_empty());
    }

    #[test]
    fn an_address_may_not_come_too_often_and_a_network_of_ipv6_is_one() {
        let limits = GateLimits { connections_max: 90, per_ip_max: 0, per_ip_per_second_max: 2, observes: false };
        let gate = Gate::new(limits, Arc::default());
        let at = Duration::from_millis;
        let [one, two] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(|address| Some(IpAddr::from(address)));
        let enter = |address, ms| gate.enter(address, at(ms)).map(drop);
        assert_eq!((enter(one, 0), enter(one, 0), enter(one, 0)), (Ok(()), Ok(()), Err(Refused::TooOften)));
        assert_eq!((enter(two, 0), enter(None, 0)), (Ok(()), Ok(())), "others may");
        assert_eq!((enter(one, 499), enter(one, 500)), (Err(Refused::TooOften), Ok(())));
        let v6 = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
        assert_eq!((enter(v6("2001:db8::1"), 0), enter(v6("2001:db8::2:0:0:1"), 0)), (Ok(()), Ok(())));
        assert_eq!(enter(v6("2001:db8::ffff"), 0), Err(Refused::TooOften));
        assert_eq!(enter(v6("2001:db8:0:1::1"), 0), Ok(()));
        assert_eq!(gate.beyond.totals(&RegistryStats::default())[0][Limit::HandshakesPerIp as usize], 3);
        assert_eq!(gate.open.load(Ordering::Relaxed), 0, "who was refused has no place");
        gate.set_limits(GateLimits { observes: true, ..limits });
        assert_eq!((enter(one, 500), enter(one, 500)), (Ok(()), Ok(())), "it is only observed");
        gate.set_limits(GateLimits { per_ip_per_second_max: 0, ..limits });
        assert_eq!((enter(one, 500), enter(one, 500)), (Ok(()), Ok(())), "it is off");
    }

    #[test]
    fn a_network_of_ipv6_has_the_places_of_one_address() {
        let gate = gate(9, 1, false);
        let v6 = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
        let first = gate.enter(v6("2001:db8::1"), Duration::ZERO).expect("a place");
        assert_eq!(gate.enter(v6("2001:db8::2"), Duration::ZERO).err(), Some(Refused::Address));
        assert_eq!(first.address(), v6("2001:db8::1"), "what is told of it is the whole address");
        drop(first);
        assert!(gate.enter(v6("2001:db8::2"), Duration::ZERO).is_ok() && gate.per_ip.is_empty());
    }
}
