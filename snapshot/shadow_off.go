//go:build !invariants

package snapshot

import (
	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// watch is what shadow_on.go has in programs with the tag invariants: nothing, here.
type watch struct{}

func (*watch) enter(*Reader)                                        {}
func (*watch) leave(*Reader)                                        {}
func (*watch) enterBackup(*Backup)                                  {}
func (*watch) leaveBackup(*Backup)                                  {}
func (s *Set) checkInterval(block.ID, block.LSN, block.LSN, string) {}
func (s *Set) checkUnwanted(block.ID, block.LSN, block.LSN)         {}
func (s *Set) checkLeft()                                           {}
func (s *Set) watchHorizon()                                        {}

// Shown is checked with the tag invariants only.
func (s *Set) Shown(block.ID, *blockcache.Version) {}
