package simfs

import (
	"slices"
	"syscall"
)

// Failure is one way in which operations fail, for sweeps that have each of them fail in
// every way.
type Failure struct {
	Name  string
	Ops   Op // that can fail so
	Fault Fault
}

// Failures are all ways, those for good last.
func Failures() (list []Failure) {
	const writes = OpWrite | OpAllocate | OpCreate | OpTemp | OpMkdir | OpLink | OpRename | OpSync | OpSyncDir
	const opens = OpOpen | OpCreate | OpTemp | OpReadDir
	once := []Failure{
		{"EIO", siteOps, Fault{Err: syscall.EIO}},
		{"ENOSPC", writes, Fault{Err: syscall.ENOSPC}},
		{"EDQUOT", writes, Fault{Err: syscall.EDQUOT}},
		{"EMFILE", opens, Fault{Err: syscall.EMFILE}},
		{"EROFS", writes | OpTruncate | OpPunch | OpRemove, Fault{Err: syscall.EROFS}},
		{"short write", OpWrite, Fault{Err: syscall.ENOSPC, Short: true}},
		{"short read", OpRead, Fault{Err: syscall.EIO, Short: true}},
		{"sync that loses", OpSync, Fault{Err: syscall.EIO, Sync: SyncCacheNew}},
		{"done, and failed", Events, Fault{Err: syscall.EIO, Late: true}},
	}
	list = append(list, once...)
	// Of these the system tells once, to whoever syncs the file next.
	list = append(list,
		Failure{"sync that loses and shows the old", OpSync, Fault{Sync: SyncCacheOld}},
		Failure{"write that is lost", OpWrite, Fault{WriteBack: true, Sync: SyncCacheNew}},
		Failure{"write that is lost and shown no more", OpWrite, Fault{WriteBack: true, Sync: SyncCacheOld}})
	for _, f := range once {
		f.Name += " for good"
		f.Fault.Sticky = true
		list = append(list, f)
	}
	return list
}

// Failures are the ways in which operations of a site can fail.
func (s Site) Failures() []Failure {
	return slices.DeleteFunc(Failures(), func(f Failure) bool { return f.Ops&s.Op == 0 })
}

// Fail has operation number skip of a site fail.
func (s *Sites) Fail(fs *FS, site Site, f Failure, skip int) *Armed {
	fault := f.Fault
	fault.Ops, fault.Skip = site.Op, skip
	fault.Match = func(ev Event) bool {
		at, _ := s.Of(ev)
		return at == site
	}
	return fs.Fail(fault)
}

// Missed are the sites of a run without faults of which no operation met one in s.
func (s *Sites) Missed(clean *Sites) (list []Site) {
	for _, site := range clean.All() {
		if s.Struck(site) == 0 {
			list = append(list, site)
		}
	}
	return list
}
