package kv

// FailTx makes tx what a change leaves that could not be finished.
func FailTx(tx *Tx, cause error) { _ = tx.after(cause) }

// TreeOf returns root block and height of what tx sees.
func TreeOf(tx *Tx) (root uint64, height int) { return uint64(tx.tree.root), tx.tree.height }

// BatchWaiting is the number of calls that wait for the next batch.
func BatchWaiting(db *DB) int {
	db.batch.mu.Lock()
	defer db.batch.mu.Unlock()
	return len(db.batch.waiting)
}

// Beside returns a second front door on the store of db: what it commits comes to
// db as the commits of a primary come to a standby, from below.
func Beside(db *DB) *DB {
	return &DB{store: db.store, payload: db.payload, w: &workspace{scratch: make(node, db.payload)}, ended: make(chan struct{})}
}
