// The daemon's helper that forks into containers; started by it, and gone with it.
import { serveAttach } from '#src/host/attach/server.ts';

serveAttach(process);
