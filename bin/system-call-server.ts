// The daemon's helper that does what containers may not do by themselves; started by it.
import { serveSystemCalls } from '#src/host/system-calls/server.ts';

serveSystemCalls(process);
