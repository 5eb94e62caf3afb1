package announce

import "container/list"

// recent is a map of bounded size: a new key in a full one pushes out the key
// that was set longest ago.
type recent[K comparable, V any] struct {
	limit   int
	order   *list.List // of entry[K, V], oldest first
	entries map[K]*list.Element
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newRecent[K comparable, V any](limit int) *recent[K, V] {
	return &recent[K, V]{limit: limit, order: list.New(), entries: map[K]*list.Element{}}
}

// get returns the value of a key, and does not make it newer.
func (r *recent[K, V]) get(key K) (V, bool) {
	if e, ok := r.entries[key]; ok {
		return e.Value.(entry[K, V]).value, true
	}
	var zero V
	return zero, false
}

// set gives a key a value and makes it the newest.
func (r *recent[K, V]) set(key K, value V) {
	if e, ok := r.entries[key]; ok {
		e.Value = entry[K, V]{key, value}
		r.order.MoveToBack(e)
		return
	}
	if len(r.entries) >= r.limit {
		r.remove(r.order.Front())
	}
	r.entries[key] = r.order.PushBack(entry[K, V]{key, value})
}

// removeFunc removes the keys for which gone holds.
func (r *recent[K, V]) removeFunc(gone func(K) bool) {
	for e := r.order.Front(); e != nil; {
		next := e.Next()
		if gone(e.Value.(entry[K, V]).key) {
			r.remove(e)
		}
		e = next
	}
}

// all calls f with each key and value, oldest first, until it returns false.
func (r *recent[K, V]) all(f func(K, V) bool) {
	for e := r.order.Front(); e != nil; e = e.Next() {
		if v := e.Value.(entry[K, V]); !f(v.key, v.value) {
			return
		}
	}
}

func (r *recent[K, V]) len() int { return len(r.entries) }

func (r *recent[K, V]) remove(e *list.Element) {
	r.order.Remove(e)
	delete(r.entries, e.Value.(entry[K, V]).key)
}
