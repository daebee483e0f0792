package simfs

import (
	"io/fs"
	"time"
)

// info is a fs.FileInfo.
type info struct {
	name string
	size int64
	mode fs.FileMode
}

func (n *node) info(name string) info { return info{name: name, size: n.live.size, mode: n.mode} }

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }
