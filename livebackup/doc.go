// Package livebackup is being written.
package livebackup
