/* LPIs and the Interrupt Translation Service (IHI 0069, "Locality-specific Peripheral Interrupts and the ITS").
 * Its tables stand in RAM behind the guest's image, see its.c. Collection n is CPU n's. Only CPU 0 sends commands;
 * each is done when its function returns, and its effects are sure after its_sync(). */
#ifndef ITS_H
#define ITS_H

#include "types.h"

#define LPI_FIRST  8192u
#define LPI_COUNT  8192u /* GICR_PROPBASER.IDbits is 13 */

/* A device whose EventIDs have 5 bits, and one with 14, as MAPI needs, where EventID and INTID are one. */
#define ITS_DEVICES     4u
#define ITS_EVENT_BITS  5u
#define ITS_WIDE_DEVICE 3u
#define ITS_WIDE_BITS   14u

/* Whether the device tree has an ITS. */
bool its_present(void);

/* Tables, queue, ITS on (once); and LPIs of this CPU on (each CPU). */
void its_init(void);
void its_cpu_init(void);

/* Configuration of an LPI; the GIC may keep the old one until an INV or INVALL. */
void lpi_configure(u32 lpi, u8 priority, bool enable);

/* Devices 0 to ITS_DEVICES - 1 have room for a table each. */
void its_mapd(u32 device);
void its_unmapd(u32 device);
void its_mapc(u32 collection, u32 cpu);
void its_mapti(u32 device, u32 event, u32 lpi, u32 collection);
void its_mapi(u32 device, u32 event, u32 collection);
void its_movi(u32 device, u32 event, u32 collection);
void its_movall(u32 from_cpu, u32 to_cpu);
void its_int(u32 device, u32 event);
void its_clear(u32 device, u32 event);
void its_discard(u32 device, u32 event);
void its_inv(u32 device, u32 event);
void its_invall(u32 collection);
void its_sync(u32 cpu);

/* SYNC for each of the first ``count`` CPUs. */
void its_sync_all(u32 count);

/* A store to GITS_TRANSLATER by this CPU; which DeviceID that has is the system's choice. */
void its_store_event(u32 event);

#endif
