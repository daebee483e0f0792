package mvcc

import "context"

// # Waiting that can be given up
//
// Who asks through the admin socket may be gone before it is his turn: the open write
// transaction may take an hour, and so may a quiet. What he asked for is not done then, and
// he keeps nobody waiting: neither the place of his connection, nor a server that closes,
// nor, if it is he who quiets the store, its writers.
//
//	writer            lockWriter
//	anchor.writing    a turn, see lock
//	rounds            cleaner.awaitRoundFor
//
// What has begun is not given up: a commit, a round and a sync end by themselves.

// lock is Lock for who may give up.
func (t turn) lock(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lockWriter takes the writer's lock, or returns why ctx ended. A mutex cannot be given
// up, and writers, who take it all the time, want nothing slower: so one goroutine waits
// for it and, if nobody takes it from its hand, gives it back at once. There is never more
// than one: whoever comes behind waits for that one's turn.
func (s *Store) lockWriter(ctx context.Context) error {
	if ctx.Done() == nil {
		s.writer.Lock()
		return nil
	}
	if s.writer.TryLock() {
		return nil
	}
	if err := s.patient.lock(ctx); err != nil {
		return err
	}
	got := make(chan struct{})
	go func() {
		defer s.patient.Unlock()
		s.writer.Lock()
		select {
		case got <- struct{}{}:
		case <-ctx.Done():
			s.writer.Unlock()
		}
	}()
	select {
	case <-got:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
