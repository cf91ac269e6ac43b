//! A future that wakes itself while it is polled is polled again at once. To have its task scheduled once more for it
//! would wake another thread, which costs more than a small request; the bodies of requests do so twice.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// How often it is polled before others have their turn.
const ROUNDS: usize = 8;

/// Polls one future.
pub(super) struct Wakes {
    shared: Arc<Shared>,
    /// The same, as the future knows it.
    waker: Waker,
}

#[derive(Default)]
struct Shared {
    polling: AtomicBool,
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if !self.polling.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

impl Wakes {
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        Wakes { waker: Waker::from(Arc::clone(&shared)), shared }
    }

    /// Polls the future, again and again as long as it wakes itself meanwhile, up to a limit.
    pub(super) fn poll<F: Future>(&self, cx: &mut Context<'_>, mut future: Pin<&mut F>) -> Poll<F::Output> {
        let Shared { polling, woken, task } = &*self.shared;
        task.register(cx.waker());
        polling.store(true, Ordering::SeqCst);
        for _ in 0..ROUNDS {
            woken.store(false, Ordering::SeqCst);
            let polled = future.as_mut().poll(&mut Context::from_waker(&self.waker));
            if polled.is_ready() || !woken.load(Ordering::SeqCst) {
                polling.store(false, Ordering::SeqCst);
                // Someone else may have come in between.
                if woken.load(Ordering::SeqCst) {
                    cx.waker().wake_by_ref();
                }
                return polled;
            }
        }
        polling.store(false, Ordering::SeqCst);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_wakes_itself_is_polled_at_once_and_a_wake_from_outside_reaches_the_task() {
        let (wakes, count) = (Wakes::new(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let (mut polled, mut kept) = (0, None);
        {
            let mut future = std::pin::pin!(std::future::poll_fn(|cx: &mut Context<'_>| {
                polled += 1;
                kept = Some(cx.waker().clone());
                if polled < 3 {
                    cx.waker().wake_by_ref();
                }
                Poll::<()>::Pending
            }));
            assert!(wakes.poll(&mut cx, future.as_mut()).is_pending());
        }
        assert_eq!((polled, count.0.load(Ordering::Relaxed)), (3, 0));
        kept.unwrap().wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_never_rests_lets_others_have_their_turn() {
        let (wakes, count) = (Wakes::new(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut polled = 0;
        let mut future = std::pin::pin!(std::future::poll_fn(|cx: &mut Context<'_>| {
            polled += 1;
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        assert!(wakes.poll(&mut Context::from_waker(&waker), future.as_mut()).is_pending());
        assert_eq!((polled, count.0.load(Ordering::Relaxed)), (ROUNDS, 1));
    }
}
