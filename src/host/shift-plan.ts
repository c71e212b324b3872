// Arithmetic of id maps: what an owner, an ACL or a file capability becomes when a tree changes its map.
import type { OwnerShift } from './host.ts';
import { toContainer, toHost, type IdRange } from './id-map.ts';

const CAP_REVISION_MASK = 0xff000000;
const CAP_REVISION_2 = 0x02000000;
const CAP_REVISION_3 = 0x03000000;
const CAP_SIZE_2 = 20;
const CAP_SIZE_3 = 24;
const ACL_USER = 0x02;
const ACL_GROUP = 0x08;
const ACL_HEADER = 4;
const ACL_ENTRY = 8;

export interface ShiftPlan {
  uid(uid: number): number;
  gid(gid: number): number;
  /** system.posix_acl_access and _default. */
  acl(value: Buffer): Buffer;
  /** security.capability: a shifted one names the root that it counts for (revision 3). */
  capability(value: Buffer): Buffer;
}

/** null: the ids of the host. An id that one of the maps has not stays what it is. */
function shifter(kind: IdRange['kind'], { from, to }: OwnerShift): (id: number) => number {
  return (id) => {
    const inside = from === null ? id : toContainer(from, kind, id);
    if (inside === undefined) return id;
    return (to === null ? inside : toHost(to, kind, inside)) ?? id;
  };
}

export function planShift(shift: OwnerShift): ShiftPlan {
  const uid = shifter('uid', shift);
  const gid = shifter('gid', shift);
  return {
    uid,
    gid,
    acl(value) {
      const shifted = Buffer.from(value);
      for (let at = ACL_HEADER; at + ACL_ENTRY <= shifted.length; at += ACL_ENTRY) {
        const tag = shifted.readUInt16LE(at);
        if (tag === ACL_USER) shifted.writeUInt32LE(uid(shifted.readUInt32LE(at + 4)), at + 4);
        if (tag === ACL_GROUP) shifted.writeUInt32LE(gid(shifted.readUInt32LE(at + 4)), at + 4);
      }
      return shifted;
    },
    capability: (value) => shiftCapability(value, uid),
  };
}

function shiftCapability(value: Buffer, uid: (id: number) => number): Buffer {
  if (value.length < CAP_SIZE_2) return value;
  const magic = value.readUInt32LE(0);
  const flags = magic & ~CAP_REVISION_MASK;
  const rootId = value.length >= CAP_SIZE_3 ? value.readUInt32LE(CAP_SIZE_2) : 0;
  const newRootId = uid(rootId);
  const shifted = Buffer.alloc(newRootId === 0 ? CAP_SIZE_2 : CAP_SIZE_3);
  value.copy(shifted, 0, 0, CAP_SIZE_2);
  shifted.writeUInt32LE((flags | (newRootId === 0 ? CAP_REVISION_2 : CAP_REVISION_3)) >>> 0, 0);
  if (newRootId !== 0) shifted.writeUInt32LE(newRootId, CAP_SIZE_2);
  return shifted;
}
